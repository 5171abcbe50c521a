"""Pinned formats: what was once written must stay readable."""
