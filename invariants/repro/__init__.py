"""Standalone scripts that show a violation with torch alone."""

from invariants.repro import adapter, clip, extraction, grpo, optimizer, programs, split  # noqa: F401  (this registers them)
from invariants.repro.script import script, scripts
from invariants.repro.snippet import IMPOSSIBLE, SNIPPETS

__all__ = ["IMPOSSIBLE", "SNIPPETS", "script", "scripts"]
