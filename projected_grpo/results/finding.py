"""Which files paths stand for: a file, a folder with everything below it, or a pattern.

Below a folder, what is called *.log or *.jsonl, in any case and gzipped or not, may be a run's log; its content says
whether it is one. What is only called alike, such as log.jsonl.1, is not read, but named.
"""

import glob
import gzip
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

from projected_grpo.results.errors import NoLogsError

LOG = "log.jsonl"  # what every run's own log is called
CALLED_LOG = re.compile(r".*\.(?:log|jsonl)(?:\.gz)?", re.IGNORECASE | re.DOTALL)
_ALIKE = re.compile(r".*\.(?:log|jsonl)(?:[^a-z].*)?", re.IGNORECASE | re.DOTALL)
_MARK = b', "crc32": "'  # in each line of a JSONL log, and in no string of any JSON, whose quotes are escaped
DAMAGED_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
_BEGINNING = 1 << 16  # bytes, of which a line of a log is a small part


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or a folder that no run was read from.

    kind: a log that cannot be read, one that was read before, or no log at all.
    named: whether it was given by its own name.
    """

    source: Path
    kind: Literal["unreadable", "copy", "no log"]
    reason: str
    named: bool = False
    error: Exception | None = None


def found(paths: Iterable[Path | str]) -> tuple[dict[Path, bool], list[LeftOut]]:
    """Files that may be logs, each once and in a fixed order, with whether each was given by its own name; and what
    else is there and looks like one.

    Raises:
        NoLogsError: a path leads to nothing.
    """
    files: dict[str, Path] = {}
    named: set[str] = set()
    left_out: dict[Path, LeftOut] = {}
    for given in paths:
        there = False
        for place in _places(given):
            candidates, others = _below(place) if place.is_dir() else ([place], [])
            there |= bool(candidates or others)
            left_out.update((each.source, each) for each in others)
            for path in candidates:
                files.setdefault(os.path.realpath(path), path)
            if place == Path(given) and not place.is_dir():
                named.add(os.path.realpath(place))
        if not there:
            raise NoLogsError(f"No log (*.log, *.jsonl, or these gzipped) is below {given}; name a folder with some.")
    return {path: real in named for real, path in files.items()}, list(left_out.values())


def opened(path: Path) -> gzip.GzipFile | BufferedReader:
    """A file as it was before it was gzipped, if it was."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")


def is_other_jsonl(path: Path) -> bool:
    """Whether a file is JSON lines of something else than a run: a pool of rollouts, problems, pairs."""
    name = path.name.lower()
    if name.removesuffix(".gz") == LOG or ".jsonl" not in name or not path.is_file():
        return False
    try:
        with opened(path) as file:
            return _MARK not in file.read(_BEGINNING)
    except DAMAGED_GZIP:
        return False


def _places(given: Path | str) -> list[Path]:
    path = Path(given)
    if path.exists():
        return [path]
    # A folder that is there is meant as it is called, whatever brackets it has.
    folder = next((parent for parent in path.parents if parent.exists()), Path())
    pattern = str(Path(glob.escape(str(folder))) / path.relative_to(folder))
    places = [Path(each) for each in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  (a pattern may begin at the root, which Path.glob refuses)
    if not places:
        raise NoLogsError(f"There is no log at {given}; name a log, a folder with logs, or a pattern in quotes.")
    return places


def _below(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """What may be logs below a folder, and what is called alike or could not be looked into."""
    left_out: list[LeftOut] = []
    files = sorted(_walked(folder, set(), left_out))
    for path in files:
        if not CALLED_LOG.fullmatch(path.name):
            reason = "its name is nearly that of a log; to have it read, give it by its name"
            left_out.append(LeftOut(source=path, kind="no log", reason=reason))
    return [path for path in files if CALLED_LOG.fullmatch(path.name)], left_out


def _walked(folder: Path, seen: set[str], left_out: list[LeftOut]) -> Iterator[Path]:
    """Files that are called like logs; links are followed, and each folder is entered once, by its own name first."""
    seen.add(os.path.realpath(folder))
    try:
        entries = sorted(folder.iterdir(), key=lambda path: (path.is_symlink(), path.name))
    except OSError as error:
        reason = f"the folder cannot be listed ({error.strerror})"
        left_out.append(LeftOut(source=folder, kind="unreadable", reason=reason, error=error))
        return
    for path in entries:
        if path.is_dir():
            if os.path.realpath(path) not in seen:
                yield from _walked(path, seen, left_out)
        elif _ALIKE.fullmatch(path.name):
            yield path
