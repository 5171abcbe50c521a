"""`projected-grpo results PATH...`: tables of runs, from logs of every format."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import arg

from projected_grpo.cli.terminal import show, write
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

    The exit code is 1 if a run is incomplete: it is named, and in no table.

    Args:
        paths: logs, folders (every log.jsonl and *.log below them) or patterns in quotes.
        format_: what is printed; csv and json have every digit and column.
        report: files to write as well; the name says the format: .txt, .md, .csv or .json.
    """
    if not paths:
        raise UsageError("There is no path; name logs or folders, such as runs.")
    if report == ():
        raise UsageError("--report names no file; give it one or more, such as results.md.")

    from projected_grpo.results.reading import read_runs
    from projected_grpo.results.rendering import format_of, rendered, terminal
    from projected_grpo.results.tables import results_of

    files = {path: format_of(path) for path in report or ()}
    made = results_of(read_runs(paths))
    if format_ == "terminal":
        show(terminal(made))
    else:
        write(rendered(made, format_))
    for path, kind in files.items():
        with whole(path) as partial:
            partial.write_text(rendered(made, kind) + "\n", encoding="utf-8", newline="\n")
    return 1 if made.incomplete.height else 0
