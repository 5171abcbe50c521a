"""The inputs that checks run on: gradients of a real run from a tape, a seeded grid of adversarial ones, and cases
drawn from the strategies.

Cases are float64; a trial casts them to the subject's dtype, and judges what the subject did with the cast values.
"""

from dataclasses import dataclass

import torch

from invariants.bounds import orthonormality_defect, unit_roundoff
from invariants.cases.adapter import AdapterCase, linears
from invariants.cases.drawn import PROFILES, Profile, drawn
from invariants.cases.draws import orthonormal_rows
from invariants.cases.extraction import ExtractionCase, contrasts
from invariants.cases.grade import GradeCase, programs
from invariants.cases.grpo import GRPOCase, groups
from invariants.cases.logs import LogCase, logged
from invariants.cases.routed_step import StepCase, steps_of, synthetic_steps
from invariants.cases.split import SplitCase, adversarial_splits, splits_of
from invariants.cases.train import TrainCase, runs
from invariants.errors import SuiteError, UnusableTapeError
from invariants.strategies import adapter_cases, split_cases, step_cases
from reference import Tape

Case = SplitCase | StepCase | AdapterCase | GRPOCase | ExtractionCase | TrainCase | GradeCase | LogCase


@dataclass(frozen=True, eq=False, kw_only=True)
class Cases:
    """All cases of a run, by capability."""

    split: tuple[SplitCase, ...]
    routed_step: tuple[StepCase, ...]
    adapter: tuple[AdapterCase, ...]
    grpo: tuple[GRPOCase, ...]
    extraction: tuple[ExtractionCase, ...]
    train: tuple[TrainCase, ...]
    grade: tuple[GradeCase, ...]
    logs: tuple[LogCase, ...]
    seed: int


def build_cases(tape: Tape, seed: int, profile: Profile = "ci") -> Cases:
    """What a run with this tape, seed and profile checks; the same arguments give the same bits in every process.

    quick: the grid and a few steps of the tape, for scans over many seeds, among which the tape is always the same;
    ci: the grid, the whole tape and some cases from the strategies; deep: hundreds of those.

    Raises UnusableTapeError, and SuiteError for an unknown profile or a seed that torch's generators do not take.
    """
    if not 0 <= seed < 2**48:
        raise SuiteError(f"The seed is {seed}; it must be at least 0 and below 2**48.")
    if profile not in PROFILES:
        raise SuiteError(f"The profile is {profile!r}; it must be one of {', '.join(PROFILES)}.")
    check_tape(tape)
    extent = PROFILES[profile]
    return Cases(
        split=(
            *splits_of(tape, extent.tape_steps), *adversarial_splits(seed), *drawn(split_cases(), extent.split, seed),
        ),
        routed_step=(
            steps_of(tape, extent.tape_steps), *synthetic_steps(seed), *drawn(step_cases(), extent.routed_step, seed),
        ),
        adapter=(*linears(seed), *drawn(adapter_cases(), extent.adapter, seed)),
        grpo=tuple(groups(seed)),
        extraction=tuple(contrasts(seed)),
        train=tuple(runs(seed)),
        grade=tuple(programs()),
        logs=tuple(logged(seed)),
        seed=seed,
    )  # fmt: skip


def check_tape(tape: Tape) -> None:
    """Refuses a tape that no run can have recorded, so that it is not the subject that is blamed.

    Rows may come from a float32 decomposition, whose vectors are orthogonal to a modest multiple of r u.
    """
    names = set(tape.gradients)
    if not names or names != set(tape.basis) or names != set(tape.start):
        raise UnusableTapeError("The tape's gradients, basis and start do not name the same modules; record it again.")
    steps = tape.steps
    for name, g in tape.gradients.items():
        V, start = tape.basis[name], tape.start[name]
        shapes = f"gradients {tuple(g.shape)}, basis {tuple(V.shape)} and start {tuple(start.shape)}"
        if g.dim() != 2 or g.shape[0] != steps or steps < 1 or V.dim() != 2 or start.shape != g.shape[1:]:
            raise UnusableTapeError(f"{name}: the tape has {shapes}; they must be ({steps}, r), (k, r) and (r,).")
        if V.shape[1] != g.shape[1] or g.shape[1] < 1:
            raise UnusableTapeError(f"{name}: the tape has {shapes}; they must agree in r.")
        if not all(bool(t.isfinite().all()) for t in (g, V, start)):
            raise UnusableTapeError(f"{name}: the tape holds NaN or infinity; record it again from finite gradients.")
        if orthonormality_defect(V) > 4 * V.numel() * unit_roundoff(torch.float32):
            raise UnusableTapeError(f"{name}: the rows of the tape's basis are neither orthonormal nor zero.")
    if not any(bool(V.any()) for V in tape.basis.values()):
        raise UnusableTapeError("The tape's basis is empty for every module, so nothing of it could be routed.")
    if not any(bool(g.any()) for g in tape.gradients.values()):
        raise UnusableTapeError("All gradients of the tape are zero, so nothing of it could be routed.")


__all__ = [
    "AdapterCase",
    "Case",
    "Cases",
    "ExtractionCase",
    "GRPOCase",
    "GradeCase",
    "LogCase",
    "Profile",
    "SplitCase",
    "StepCase",
    "TrainCase",
    "build_cases",
    "check_tape",
    "orthonormal_rows",
    "synthetic_steps",
]
