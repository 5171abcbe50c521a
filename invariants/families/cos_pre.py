"""split.cos_pre: the logged share of the gradient that is hack-ward, in which no two axes may cancel."""

import math

import torch

from invariants.bounds import gamma
from invariants.measurement import Measurement, worst
from invariants.registry import invariant
from invariants.trials import StepTrial


@invariant(
    "split.cos_pre", theorem="T6", capability="routed_step", events=("axes of both signs",),
    reads="the share that it logs: let the step return it as cos_pre in a fifth mapping",
)  # fmt: skip
def cos_pre(trial: StepTrial) -> Measurement | None:
    """The logged cos_pre is |relu(V g)| / |g| of the accumulated gradient, both norms over all modules with a basis.

    Its error is that of the coefficients, gamma(r + 2) |V| |g|, which relu does not enlarge, and of two norms. Steps
    without a gradient have no share.

    Fails when: a run looks less hack-ward than it is, since axes or modules with opposite signs cancel.

    Likely cause: a signed sum over axes or modules before the relu, a mean of the modules' shares, or the gradient
    after the clip or the split.
    """
    logged = trial.run(trial.setting.interventions[-1]).log("cos_pre")
    if logged is None:
        return None
    covered = {name: V for name, V in trial.basis.items() if len(V)}
    shown = []  # (step, what it should be, what rounding can make of it, whether axes could cancel)
    for step, gradients in enumerate(trial.gradients):
        g = {name: gradients[name] for name in covered}
        length = math.hypot(*(float(t.norm()) for t in g.values()))
        if length == 0:
            continue
        c = torch.cat([V @ g[name] for name, V in covered.items()])
        errors = [gamma(V.shape[1] + 2, trial.dtype) * (V.abs() @ g[name].abs()) for name, V in covered.items()]
        share = float(c.relu().norm()) / length
        lost = 2 * trial.norm_underflow / length
        bound = float(torch.cat(errors).norm()) / length + trial.norm_rounding * share + lost
        shown.append((step, share, bound, bool(c.min() < 0 < c.max())))
    largest = max((share for _, share, _, _ in shown), default=0.0)
    return worst(
        Measurement(
            abs(logged[step] - share), bound, f"{trial.case.label}, step {step}", {"axes of both signs": both},
            scale=largest,
        )
        for step, share, bound, both in shown
    )  # fmt: skip
