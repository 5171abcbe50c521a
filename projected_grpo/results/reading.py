"""Reading runs: which reader a file's content asks for, and all runs that paths stand for.

read_run("runs/tiny-route-seed0/log.jsonl")
read_runs(["runs", "old/*.log"])               raises for the first log that cannot be read
gather(["runs", "old/*.log"]).left_out         reads what can be read, and names the rest
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from projected_grpo.results.errors import NoLogsError, ResultsError, UnreadableLogError
from projected_grpo.results.finding import CALLED_LOG, DAMAGED_GZIP, LOG, LeftOut, found, is_other_jsonl, opened
from projected_grpo.results.jsonl import read_jsonl
from projected_grpo.results.run import LoggedRun
from projected_grpo.results.text import read_text

_ALL_COLUMNS = re.compile(r", which a text log needs \(.*?\)")  # too long for a list of files that are no logs at all

_END = 4096  # bytes, in which logs that are not copies differ nearly always; only where they don't, all are compared


@dataclass(frozen=True)
class Gathered:
    """All runs that paths stand for, and everything there that no run was read from."""

    runs: list[LoggedRun]
    left_out: list[LeftOut]

    @property
    def exit_code(self) -> int:
        """0; 1 if a log in a folder or of a pattern cannot be read; 2 if one cannot that was given by its name."""
        return max((1 + each.named for each in self.left_out if each.kind == "unreadable"), default=0)


def read_run(path: Path | str) -> LoggedRun:
    """Reads one log, of whatever format, gzipped or not: a file, or the folder of a run.

    Its content says which format it is, and its name nothing.

    Raises:
        UnknownFormatError: columns or a schema version that no reader knows.
        UnreadableLogError: it does not say which run it is of.
        NoLogsError: there is no such file.
    """
    path = Path(path)
    path = path / LOG if path.is_dir() else path
    return _run(path, _content(path))


def read_runs(paths: Iterable[Path | str]) -> list[LoggedRun]:
    """Reads files, folders and patterns, in a fixed order; each file once, and of byte-identical ones the first.

    Raises what `read_run` raises.
    """
    gathered = gather(paths)
    for each in gathered.left_out:
        if each.error is not None:
            raise each.error
    return gathered.runs


def gather(paths: Iterable[Path | str]) -> Gathered:
    """Reads what can be read of files, folders and patterns.

    Raises:
        NoLogsError: a path leads to nothing, or to no log.
        ResultsError: what `read_run` raises, where it is the only file.
    """
    files, left_out = found(paths)
    runs: list[LoggedRun] = []
    sources: dict[tuple[int, bytes], list[Path]] = {}
    for path, named in files.items():
        try:
            if not named and is_other_jsonl(path):
                left_out.append(LeftOut(source=path, kind="no log", reason="it is JSON lines, but of no run"))
                continue
            content = _content(path)
            alike = sources.setdefault((len(content), content[-_END:]), [])
            if first := next((other for other in alike if _content(other) == content), None):
                reason = f"it holds the same bytes as {first}, and a run counts once"
                left_out.append(LeftOut(source=path, kind="copy", reason=reason, named=named))
                continue
            runs.append(_run(path, content))
            alike.append(path)
        except (ResultsError, OSError) as error:
            left_out.append(_failed(path, error, named=named))
    if not runs:
        raise _nothing([each for each in left_out if each.error is not None], len(left_out))
    return Gathered(runs, left_out)


def _content(path: Path) -> bytes:
    if path.is_symlink() and not path.exists():
        raise NoLogsError(f"{path} is a link that leads nowhere; leave it out.")
    if not path.is_file():
        raise NoLogsError(f"There is no log at {path}; name a log, a folder with logs, or a pattern in quotes.")
    try:
        with opened(path) as file:
            return file.read()
    except DAMAGED_GZIP as error:
        raise UnreadableLogError(f"{path}: it was gzipped, and is damaged ({error}); leave it out.") from None


def _run(path: Path, content: bytes) -> LoggedRun:
    if not content.strip(b"\0 \t\r\n"):
        raise UnreadableLogError(f"{path} is empty; leave it out.")
    is_json = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"{"
    return (read_jsonl if is_json else read_text)(path, content)


def _failed(path: Path, error: Exception, *, named: bool) -> LeftOut:
    """A file that could not be read; one that a pattern brought in and that is not called a log may be anything."""
    reason = f"it cannot be read ({error.strerror or error})" if isinstance(error, OSError) else str(error)
    if reason.startswith(str(path)):
        reason = f"it{reason.removeprefix(str(path))}".removeprefix("it, ").removeprefix("it: ")
    reason = _ALL_COLUMNS.sub("", reason).removesuffix(".").removesuffix("; leave it out")
    if not named and not CALLED_LOG.fullmatch(path.name):
        return LeftOut(source=path, kind="no log", reason=reason)
    return LeftOut(source=path, kind="unreadable", reason=reason, named=named, error=error)


def _nothing(failed: list[LeftOut], count: int) -> Exception:
    if len(failed) == 1 and failed[0].error is not None:
        return failed[0].error
    if not failed:
        return NoLogsError(f"None of {count} files that look like logs is the log of a run; name one that is.")
    return NoLogsError(f"None of {len(failed)} logs can be read, of which the first is {failed[0].source}: "
                       f"{failed[0].reason}.")  # fmt: skip
