"""The invariants, a family a file; importing this package registers them in the order in which they are reported."""

from invariants.families import split, clip, optimizer, agreement, adapter  # noqa: F401, I001  (the order is the report's)
