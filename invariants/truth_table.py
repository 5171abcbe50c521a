"""The truth table of docs/theory.md, measured: which space, clip, gate and optimizer together keep which guarantee.

    python -m invariants.truth_table                          print it
    python -m invariants.truth_table --write docs/theory.md   put it between the markers of that file
    python -m invariants.truth_table --check docs/theory.md   exit code 1 if the file's table is not current

The specification runs each combination on seeded synthetic gradients in float64, and the suite's own checks measure
it, also where a theorem's hypothesis is known to fail: the table shows what happens, not what was declared.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from invariants.cases import StepCase, synthetic_steps
from invariants.contracts import StepSetting
from invariants.registry import Invariant, selected
from invariants.runner import judge
from invariants.subjects.reference import COMBINATIONS, step_factory
from invariants.trials import StepTrial
from invariants.verdict import Verdict
from reference import SGD, AdamW, ClipPolicy, Gate, Optimizer, Routing, Space, SplitRule

COLUMNS = {
    "keeps sum": "optimizer.keeps_sum",
    "erase match": "optimizer.erase_match",
    "covers both": "clip.covers_both",
    "span": "optimizer.span",
    "no update leak": "optimizer.update_leak",
    "no displacement leak": "optimizer.displacement_leak",
    "unbiased": "optimizer.noise_drift",
}
OPTIMIZERS: dict[str, Optimizer] = {"SGD": SGD(lr=0.1, momentum=0.9), "AdamW": AdamW(lr=0.03)}
RULED: tuple[tuple[Space, ClipPolicy, Gate], ...] = (
    *((space, clip, "one_sided") for space, clip in COMBINATIONS),
    *((space, "before", "predictable") for space in get_args(Space)),
)
BEGIN, END = "<!-- truth table: begin -->", "<!-- truth table: end -->"


@dataclass(frozen=True)
class Cell:
    """Whether the guarantee held in every case, and the largest violation."""

    held: bool
    violation: float
    """Relative to how far vanilla's farthest coordinate got; for `covers both` to the limit, for `unbiased` to how
    vanilla's axes spread."""

    def __str__(self) -> str:
        return "yes" if self.held else f"no, {self.violation:.2g}"


def truth_table() -> dict[tuple[Space, ClipPolicy, Gate, str], dict[str, Cell]]:
    """(space, clip, gate, optimizer) -> column -> cell; raises RuntimeError if a cell would be vacuous."""
    invariants = {i.id: i for i in selected(COLUMNS.values())}
    cases = tuple(synthetic_steps(seed=0))
    rows = {}
    for space, clip, gate in RULED:
        for name, optimizer in OPTIMIZERS.items():
            routing = Routing(optimizer=optimizer, space=space, clip=clip, rule=SplitRule(gate=gate))
            setting = StepSetting(optimizer=name, space=space, clip=clip, rule=routing.rule, reference=optimizer)
            trials = [
                (case, StepTrial(step_factory(routing), setting=setting, case=case, dtype=torch.float64))
                for case in cases
            ]
            rows[space, clip, gate, name] = {
                column: measured_cell(invariants[id], setting.label, trials) for column, id in COLUMNS.items()
            }
    return rows


def measured_cell(invariant: Invariant, label: str, trials: list[tuple[StepCase, StepTrial]]) -> Cell:
    """One guarantee of one combination, over all cases."""
    trials = trials[:1] if invariant.per == "setting" else trials
    judged = judge(invariant, label, trials)
    if judged.measured is None or judged.verdict in (Verdict.VACUOUS, Verdict.ERROR, Verdict.NOT_APPLICABLE):
        raise RuntimeError(f"{invariant.id} under {label} is {judged.verdict}: {judged.reason}")
    relative = []
    for case, trial in trials:
        measured = invariant.check(trial)
        scale = case.max_norm if invariant.family == "clip" else trial.run("none").deployed.distance
        if measured is not None:
            scale = measured.scale if invariant.per == "setting" else scale
            relative.append(measured.residual / scale)
    return Cell(judged.verdict is Verdict.HOLDS, max(relative))


def lines() -> Iterator[str]:
    """The table in Markdown."""
    yield f"| space | clip | gate | optimizer | {' | '.join(COLUMNS)} |"
    yield f"|{'---|' * (4 + len(COLUMNS))}"
    for (space, clip, gate, optimizer), cells in truth_table().items():
        yield f"| {space} | {clip} | {gate} | {optimizer} | {' | '.join(map(str, cells.values()))} |"


def with_table(text: str, table: str) -> str:
    """The text with everything between the markers replaced; raises ValueError if a marker is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"there is no {BEGIN} ... {END} to put the table between")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(args: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m invariants.truth_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", type=Path, metavar="FILE")
    group.add_argument("--check", type=Path, metavar="FILE")
    options = parser.parse_args(args)
    path: Path | None = options.write or options.check
    torch.set_num_threads(1)
    try:
        text = path.read_text() if path else ""
        if path:
            with_table(text, "")  # refuse a file without markers before measuring
    except (OSError, ValueError) as error:
        parser.error(f"{path}: {error}")
    table = "\n".join(lines())
    if path is None:
        print(table)
        return 0
    current = with_table(text, table)
    if options.write:
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(current)
        partial.replace(path)
        return 0
    if current != text:
        print(f"{path}: the truth table is not current; run `make truth-table`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
