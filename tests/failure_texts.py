"""Complete failure texts of museum faults, pinned byte for byte under tests/data/failures.

    python tests/failure_texts.py     writes them anew; read the diff before you commit it

All are of float64 faults that are gross beside rounding, so that the digits shown are the same on every machine.
"""

import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

from museum_tape import tape

from invariants import Report, SplitSetting, Subject
from invariants.cases import build_cases
from invariants.demands import Demands
from invariants.failure import Command, failure, stories
from invariants.museum import FAULTS
from invariants.registry import selected
from invariants.runner import Bench

FOLDER = Path(__file__).parent / "data" / "failures"

# Fault -> the family or invariant that is run.
FAULTY = {
    "removed reads the gradient that kept has changed in place": "split.conservation",
    "kept is written into the gradient's buffer": "split.purity",
    "sign of V flipped": "split.one_sided",
    "signed sum over the axes before relu": "split.null_baseline",
    "overshoot 1 is forced": "split.matches_reference",
    "clip covers the deployed set only": "clip.covers_both",
    "clip per module": "clip.common_factor",
    "norm after the clip logged as the one before it": "clip.logged_norms",
    "AdamW with two states": "optimizer.keeps_sum",
    "erase has an overshoot that route has not": "optimizer.erase_match",
    "dampening that nobody asked for": "optimizer.matches_reference",
    "momentum missing from the checkpoint": "optimizer.resumption",
    "the quarantine's gradient is zeros instead of None": "optimizer.inert_quarantine",
    "quarantine detached": "adapter.equal_gradients",
    "ablation disables the whole adapter": "adapter.ablation",
    "running sum exported": "adapter.export",
}


def report_on(subject: Subject, only: str) -> Report:
    """As `verify` does it, without the cases that hypothesis draws: another version of it may draw others."""
    cases = build_cases(tape(), seed=0)
    settled = {
        f.name: tuple(case for case in getattr(cases, f.name) if not case.label.startswith("drawn"))
        for f in fields(cases)
        if f.name != "seed"
    }
    bench = Bench(subject, replace(cases, **settled))
    results = tuple(bench.result(invariant, Demands()) for invariant in selected([only]))
    return Report(subject=subject.name, dtype="float64", seed=0, tape={}, results=results)


def texts() -> Iterator[tuple[str, str]]:
    """(file name, text) of everything that is pinned."""
    faults = {fault.name: fault for fault in FAULTS}
    for name, id in FAULTY.items():
        report = report_on(faults[name].subject(), id)
        [result] = report.results
        yield f"{id}.txt", failure(result, Command(spec="mine:subject").again(report, result))
    for fault in {
        fault.caught_by: fault for fault in FAULTS if fault.caught_by.startswith(("grpo", "extraction"))
    }.values():
        if fault.caught_by in ("grpo.on_policy_gradient", "grpo.sources_add", "extraction.orientation"):
            [result] = report_on(fault.subject(), fault.caught_by).results
            yield f"{fault.caught_by}.txt", failure(result, "the command")
    yield "folded.txt", told(faults["an axis is in the basis twice"].subject(), "split")
    yield "an-error-told-once.txt", told(Subject(name="broken", split=raises), "split")
    yield "several-settings.txt", told(several_settings(), "split.conservation")
    yield (
        "nothing-removed.txt",
        told(Subject(name="idle", split=lambda g, V: (g.clone(), torch.zeros_like(g))), "split.span"),
    )


def told(subject: Subject, only: str) -> str:
    """Every story of a report."""
    report = report_on(subject, only)
    found = stories(report, Command(spec="mine:subject"))
    return "\n\n".join(story.text for story in found)


def raises(g: torch.Tensor, V: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A split that is none."""
    raise SystemExit("no split here")


def several_settings() -> Subject:
    """A split that is wrong in three settings, differently."""

    def leaking(factor: float, overshoot: float):
        def split(g, V):
            removed = overshoot * V.T @ torch.relu(V @ g)
            return g - removed, factor * removed

        return split

    settings = {SplitSetting(overshoot=over): leaking(1 + over / 8, over) for over in (1.0, 0.5, 2.0)}
    return Subject(name="leaky", split=settings)


def main() -> None:
    """Writes them all."""
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stale in FOLDER.glob("*.txt"):
        stale.unlink()
    for name, text in texts():
        (FOLDER / name).write_text(text + "\n")


if __name__ == "__main__":
    main()
