"""`projected-grpo plot PATH...`: runs as pictures, from their logs."""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from projected_grpo.cli.terminal import write
from projected_grpo.errors import UsageError


def plot(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, arg(metavar="PATH...")],
    /,
    *,
    out: Annotated[tuple[Path, ...], arg(metavar="FILE...")] = (Path("plot.svg"),),
) -> int:
    """Draw runs: hack and solve, hack by mode, hack-ward gradient, norms and drift over steps, a panel for each arm.

    The bold curves are of the model as deployed. Runs that are not complete, logs that cannot be read and copies are
    named and left out; the exit code is 1 if a log in a folder cannot be read, and 2 if one cannot that was given by
    its own name.

    Args:
        paths: logs, folders (every *.log and *.jsonl below them, gzipped or not) or patterns in quotes.
        out: files to write; the name says the format: .svg, .png, or .json for the numbers alone.
    """
    from projected_grpo.results import plots
    from projected_grpo.results.reading import gather

    if not paths:
        raise UsageError("plot needs a log or a folder of logs; name one, such as runs.")
    if not out:
        raise UsageError("--out names no file; give it one or more, such as plot.svg.")
    for path in out:
        plots.format_of(path)
    gathered = gather(paths)
    complete = [run for run in gathered.runs if run.complete]
    left_out = [(run.source, run.problem or "it is not complete") for run in gathered.runs if not run.complete]
    for source, why in [*left_out, *((each.source, each.reason) for each in gathered.left_out)]:
        print(f"projected-grpo: {source} is left out: {why}", file=sys.stderr)
    data = plots.series(complete, plots.clip_thresholds(complete))
    for path in out:
        plots.draw(data, path)
        write(f"{path}: {_counted(len(complete), 'run')} of {_counted(len(data.arms), 'arm')}")
    return gathered.exit_code


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
