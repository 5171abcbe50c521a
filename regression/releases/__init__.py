"""Logs that released versions wrote, and what they are read to.

v1/log.jsonl        a short run of the testbed
v1/expected.json    its sha256, and what a reader must find in it
"""

import hashlib
import json
from pathlib import Path
from typing import Any

RELEASES = Path(__file__).parent


def versions() -> list[str]:
    """The names of all frozen versions."""
    return sorted(path.name for path in RELEASES.iterdir() if (path / "expected.json").is_file())


def log(version: str) -> Path:
    """The log of a version; raises FileNotFoundError if it isn't there, and ValueError if it was changed."""
    path = RELEASES / version / "log.jsonl"
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected(version)["sha256"]:
        raise ValueError(f"{path} is not what was frozen; a log of a release is never written again.")
    return path


def expected(version: str) -> dict[str, Any]:
    """What a reader must find in it."""
    found: dict[str, Any] = json.loads((RELEASES / version / "expected.json").read_text(encoding="utf-8"))
    return found
