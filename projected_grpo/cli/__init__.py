"""`projected-grpo`: the command line. Exit codes: 0 all as expected, 1 anything red, 2 usage or bad input."""

import sys
from collections.abc import Callable, Iterator, Set
from dataclasses import is_dataclass
from importlib.metadata import version
from typing import get_args, get_origin, get_type_hints

import tyro
from rich.console import Console

from projected_grpo import kernels
from projected_grpo.cli.bench import bench
from projected_grpo.cli.experiment import experiment
from projected_grpo.cli.list_invariants import list_invariants
from projected_grpo.cli.optimizers import optimizers
from projected_grpo.cli.plot import plot
from projected_grpo.cli.pool import pool
from projected_grpo.cli.results import results
from projected_grpo.cli.suite import is_bad_input
from projected_grpo.cli.verify import verify
from projected_grpo.errors import UsageError

COMMANDS: dict[str, Callable[..., int]] = {
    "verify": verify, "optimizers": optimizers, "invariants": list_invariants, "pool": pool, "results": results,
    "plot": plot, "experiment": experiment, "bench": bench,
}  # fmt: skip
REPEATABLE = {"--expect"}


def main(args: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; bad input ends in one sentence on stderr."""
    given = sys.argv[1:] if args is None else args
    if given == ["--version"]:
        print(f"projected-grpo {version('projected-grpo')}")
        return 0
    try:
        kernels.chosen()  # a variable that says nothing known would fail in the middle of a command
        commands, given = _with_training(given) if not given or given[0] not in COMMANDS else (COMMANDS, given)
        if given and given[0] in commands:
            _refuse_repeated(given[1:], {*_lists(commands[given[0]])} - REPEATABLE)
        code: int = tyro.extras.subcommand_cli_from_dict(
            commands, prog="projected-grpo", args=given, description=__doc__, sort_subcommands=False
        )
        return code
    except (ValueError, OSError) as error:
        if not is_bad_input(error):
            raise
        told = str(error)
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            told = f"{error.filename} cannot be read or written ({error.strerror}); check the path."
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"projected-grpo: {told}", markup=False)
        return 2


def _refuse_repeated(given: list[str], lists: Set[str]) -> None:
    """Of a list that is given twice only the last one would count, and a requirement could vanish without a word."""
    names = [word.partition("=")[0].replace("_", "-") for word in given]
    if twice := [name for name in names if name in lists and names.count(name) > 1]:
        raise UsageError(f"{twice[0]} is given twice; give it once, with all of its values after it.")


def _lists(options: object) -> Iterator[str]:
    """Those of a command's options, or of the settings that it takes, that have several values."""
    for name, kind in get_type_hints(options).items():
        if is_dataclass(kind):
            yield from _lists(kind)
        elif any(get_origin(each) is tuple for each in (kind, *get_args(kind))):
            yield "--" + name.replace("_", "-")


def _with_training(given: list[str]) -> tuple[dict[str, Callable[..., int]], list[str]]:
    """All commands, and the words without the preset that the first of them may name; not for every start, for its
    options are many."""
    from projected_grpo.cli.train import command_and_rest

    asked = given[:1] == ["train"]
    train, rest = command_and_rest(given[1:] if asked else [])
    return {**COMMANDS, "train": train}, ["train", *rest] if asked else given


def run() -> None:
    """The console script."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("projected-grpo: interrupted", file=sys.stderr)
        sys.exit(130)
