"""`projected-grpo results PATH...`: tables of runs, from logs of every format."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import arg

from projected_grpo.cli.terminal import show, width, write
from projected_grpo.errors import UsageError
from projected_grpo.whole_files import whole

Format = Literal["terminal", "markdown", "csv", "json"]


def results(
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, arg(metavar="PATH...")],
    /,
    *,
    format_: Annotated[Format, arg(name="format")] = "terminal",
    report: Annotated[tuple[Path, ...] | None, arg(metavar="FILE...")] = None,
) -> int:
    """Tabulate runs: hack and solve of the last 5 steps, as trained and as deployed, and less vanilla of the same seed.

    Runs that are incomplete, logs that cannot be read and copies are named, and in no table. The exit code is 1 if a
    run is incomplete or a log in a folder cannot be read, and 2 if one cannot that was given by its own name.

    Args:
        paths: logs, folders (every *.log and *.jsonl below them, gzipped or not) or patterns in quotes.
        format_: what is printed; csv and json have every digit and column.
        report: files to write as well; the name says the format: .txt, .md, .csv or .json.
    """
    if not paths:
        raise UsageError("There is no path; name logs or folders, such as runs.")
    if report == ():
        raise UsageError("--report names no file; give it one or more, such as results.md.")

    from projected_grpo.results.reading import gather
    from projected_grpo.results.rendering import format_of, rendered, terminal
    from projected_grpo.results.tables import results_of

    files = {path: format_of(path) for path in report or ()}
    gathered = gather(paths)
    made = results_of(gathered.runs, gathered.left_out)
    if format_ == "terminal":
        show(terminal(made, width()))
    else:
        write(rendered(made, format_))
    for path, kind in files.items():
        with whole(path) as partial:
            partial.write_text(rendered(made, kind) + "\n", encoding="utf-8", newline="\n")
    for each in gathered.left_out:
        if each.kind == "unreadable":
            print(f"projected-grpo: {each.source} is left out: {each.reason}", file=sys.stderr)
    return max(gathered.exit_code, 1 if made.incomplete.height else 0)
