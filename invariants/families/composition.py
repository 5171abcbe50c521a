"""optimizer.*: how a step is made of its micro-batches, and a run of its modules."""

from dataclasses import replace

import torch

from invariants.families.optimizer import compared, drift
from invariants.hypotheses import runs
from invariants.measurement import Measurement, worst
from invariants.registry import invariant
from invariants.trajectory import Path
from invariants.trials import StepTrial


@invariant(
    "optimizer.accumulation", theorem="T5", capability="routed_step", events=("accumulated",),
    reads="how it accumulates: give the Stepper an accumulate",
)  # fmt: skip
def accumulation(trial: StepTrial) -> Measurement | None:
    """A gradient that arrives in micro-batches gives the run of their sum: clip and split act once, on the sum.

    The micro-batches are g, -g and g, whose sum is g to the last bit in every floating format and in every order, while
    relu sees coefficients of both signs.

    Fails when: the number of micro-batches, or of data-parallel ranks, changes what is removed.

    Likely cause: each micro-batch is clipped or split by itself, and the parts are added up; or the sum is averaged.
    """
    intervention = trial.setting.interventions[-1]
    stepper = trial.fresh(intervention, max_norm=trial.max_norm)
    if stepper.accumulate is None:
        return None
    parts = trial.advance(stepper, trial.gradients, micro_batches=(1.0, -1.0))
    whole = trial.run(intervention)
    bound = drift(trial, parts.deployed, parts.quarantine, whole.deployed, whole.quarantine)
    occurred = {"accumulated": trial.case.steps}
    pairs = ((parts.deployed, whole.deployed), (parts.quarantine, whole.quarantine))
    return worst((compared(trial, a, b, bound, occurred) for a, b in pairs), occurred=occurred)


@invariant(
    "optimizer.per_module", theorem="T10", capability="routed_step", applies=runs("none"),
    events=("module stepped alone",),
)  # fmt: skip
def per_module(trial: StepTrial) -> Measurement | None:
    """Without a clip, a module that is trained alone goes where it goes among others.

    Fails when: what happens to one module depends on how many there are.

    Likely cause: the foreach or fused path of the optimizer, taken for several tensors, differs from its loop, or the
    optimizer couples its parameters.
    """
    if len(trial.start) < 2:
        return None
    together, measured = trial.run("none", clipped=False), []
    for name, V in trial.case.basis.items():
        case = replace(
            trial.case,
            gradients={name: trial.case.gradients[name]},
            # Nothing is split, so that V plays no part; but a loop may refuse to have nothing but empty ones.
            basis={name: V if V.any() else torch.eye(1, V.shape[1], dtype=V.dtype)},
            start={name: trial.case.start[name]},
        )
        alone = replace(trial, case=case).run("none", clipped=False).deployed
        among = Path({name: together.deployed[name]})
        moved = {"module stepped alone": among.distance > 0}
        measured.append(compared(trial, alone, among, drift(trial, alone, among), moved))
    return worst(measured)
