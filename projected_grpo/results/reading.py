"""Reading runs: what a path stands for, and which reader a file's content asks for.

read_run("runs/tiny-route-seed0/log.jsonl")
read_runs(["runs", "old/*.log"])
"""

import glob
from collections.abc import Iterable
from pathlib import Path

from projected_grpo.results.errors import NoLogsError, UnreadableLogError
from projected_grpo.results.jsonl import read_jsonl
from projected_grpo.results.run import LoggedRun
from projected_grpo.results.text import read_text

LOG = "log.jsonl"


def read_run(path: Path | str) -> LoggedRun:
    """Reads one log, of whatever format: a file, or the folder of a run.

    Its content says which format it is, and its name nothing.

    Raises:
        UnknownFormatError: columns or a schema version that no reader knows.
        UnreadableLogError: it does not say which run it is of.
        NoLogsError: there is no such file.
    """
    path = Path(path)
    path = path / LOG if path.is_dir() else path
    if not path.is_file():
        raise NoLogsError(f"There is no log at {path}; name a log, a folder with logs, or a pattern in quotes.")
    data = path.read_bytes()
    if not data.strip(b"\0 \t\r\n"):
        raise UnreadableLogError(f"{path} is empty; leave it out.")
    return (read_jsonl if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{" else read_text)(path, data)


def read_runs(paths: Iterable[Path | str]) -> list[LoggedRun]:
    """Reads files, folders (all *.log and log.jsonl below them) and patterns; each file once, in a fixed order.

    Raises what `read_run` raises.
    """
    return [read_run(path) for path in found(paths)]


def found(paths: Iterable[Path | str]) -> list[Path]:
    """The logs that paths stand for.

    Raises:
        NoLogsError: one of them leads to none.
    """
    by_file: dict[Path, Path] = {}
    for given in paths:
        for path in _one(given):
            by_file.setdefault(path.resolve(), path)
    return list(by_file.values())


def _one(given: Path | str) -> list[Path]:
    path = Path(given)
    places = [path]
    if not path.exists():
        places = [Path(each) for each in sorted(glob.glob(str(given), recursive=True))]  # noqa: PTH207  (a pattern may begin at the root, which Path.glob refuses)
        if not places:
            raise NoLogsError(f"There is no log at {given}; name a log, a folder with logs, or a pattern in quotes.")
    logs = [log for place in places for log in (_below(place) if place.is_dir() else [place])]
    if not logs:
        raise NoLogsError(f"No *.log and no {LOG} is below {given}; name a folder that has some.")
    return logs


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and (path.suffix == ".log" or path.name == LOG))
