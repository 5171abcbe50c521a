"""What a setting claims."""

Claims = frozenset[str] | None
"""Ids of the guarantees that are claimed; None claims every one that applies."""
