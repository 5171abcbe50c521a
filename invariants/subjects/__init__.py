"""Subjects that ship with the suite."""
