"""optimizer.*: what a step costs, counted and not timed, so that every machine says the same."""

from collections import Counter

import torch

from invariants.calls import operator_calls
from invariants.cases import orthonormal_rows
from invariants.cases.routed_step import StepCase, limit_between
from invariants.hypotheses import calls_are_constant
from invariants.measurement import Measurement
from invariants.registry import invariant
from invariants.trials import StepTrial

FEW, MANY = 3, 9  # modules


@invariant(
    "optimizer.constant_calls", theorem="T23", capability="routed_step", applies=calls_are_constant,
    events=("operator called",), per="setting",
)  # fmt: skip
def constant_calls(trial: StepTrial) -> Measurement:
    """A step calls no operator more often for nine modules of one shape than for three; views are not counted.

    The second step is counted, when all that is made once has been made.

    Fails when: a step takes the longer the more modules a model has, however short their vectors are.

    Likely cause: a loop over modules in the split, the clip, the statistics or the optimizer (pass foreach=True).
    """
    few, many = (_second_step(trial, count) for count in (FEW, MANY))
    more = {name: count - few[name] for name, count in many.items() if count > few[name]}
    worst = max(more, key=lambda name: more[name], default="")
    told = f", {worst} {few[worst]} and {many[worst]} times" if worst else ""
    where = f"{few.total()} calls for {FEW} modules and {many.total()} for {MANY}{told}"
    return Measurement(
        float(sum(more.values())), 0.0, where, {"operator called": few.total()}, scale=float(few.total())
    )


def _second_step(trial: StepTrial, modules: int) -> Counter[str]:
    draw = torch.Generator().manual_seed(11)
    names = [f"module {number}" for number in range(modules)]
    gradients = {name: torch.randn(2, 6, dtype=torch.float64, generator=draw) for name in names}
    case = StepCase(
        gradients=gradients,
        basis={name: orthonormal_rows(2, 6, draw) for name in names},
        start={name: torch.zeros(6, dtype=torch.float64) for name in names},
        max_norm=limit_between(gradients),
        label=f"{modules} modules of one shape",
    )
    own = StepTrial(trial.factory, setting=trial.setting, case=case, dtype=trial.dtype)
    stepper = own.fresh(own.splitting, max_norm=own.max_norm)
    first, second = (own.handed(g) for g in own.gradients)
    stepper.step(first)
    return operator_calls(lambda: stepper.step(second))
