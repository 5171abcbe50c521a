"""extraction.run_*: the bases of a real run, the first and each refresh, against gradients that are taken anew.

What extraction.* asks of an extraction on losses that are known in closed form is asked here of the run's own model,
at the vectors that it had just then.
"""

import math

import torch

from invariants.bounds import unit_roundoff
from invariants.measurement import Measurement, elementwise, worst
from invariants.registry import invariant
from invariants.trials import TrainTrial

SHOWN = "what its basis was extracted from"


@invariant(
    "extraction.run_orthonormal", theorem="T18", capability="train", events=("several axes",), reads=SHOWN,
    per="setting",
)  # fmt: skip
def run_orthonormal(trial: TrainTrial) -> Measurement | None:
    """The axes that a run splits along are orthonormal in each module, and at most k: V V^T = I.

    Fails when: the split along these axes removes more, or less, than the component of a gradient.

    Likely cause: an axis that is in the basis twice, or a decomposition that is rounded before it is used.
    """
    if trial.bases is None:
        return None
    measured = []
    for basis in trial.bases:
        for name, V in basis.V.items():
            where, u = f"{basis.label}, {name}", unit_roundoff(basis.shown.basis[name].dtype)
            measured.append(Measurement(max(0, len(V) - basis.shown.k), 0.0, f"{where}: more than k axes"))
            if len(V):
                defect = V @ V.T - torch.eye(len(V), dtype=torch.float64)
                bound = 2 * u + u * u + basis.exact[name].growth * u
                measured.append(elementwise(defect.flatten(), bound, where, scale=1.0))
    several = sum(exact.count > 1 for basis in trial.bases for exact in basis.kept.values())
    return worst(measured, occurred={"several axes": several})


@invariant(
    "extraction.run_span", theorem="T18", capability="train", events=("directions left out",), reads=SHOWN,
    per="setting",
)  # fmt: skip
def run_span(trial: TrainTrial) -> Measurement | None:
    """The axes of a run span what its pairs differ in most, as its model would be deployed.

    With error E in D the span turns by at most |E| / (gap - |E|), where gap is the distance between the last singular
    value inside and the first outside (Wedin 1972; Stewart and Sun 1990, theorem V.4.4).

    Fails when: routing acts on directions that the pairs do not show.

    Likely cause: gradients that accumulate over the two completions of a pair, a loss that counts the prompt or the
    padding, a quarantine that is not ablated, or differences that are centred.
    """
    if trial.bases is None:
        return None
    measured, left_out = [], 0
    for basis in trial.bases:
        for name, exact in basis.kept.items():
            V = basis.V[name]
            if exact.count == 0 or len(V) == 0:
                continue
            gap = float(exact.S[exact.count - 1]) - exact.below(exact.count)
            turned = exact.off / (gap - exact.off) if gap > 2 * exact.off else math.inf
            outside = V - (V @ exact.V.T) @ exact.V
            bound = turned + (exact.growth + 2) * unit_roundoff(basis.dtype)
            measured.append(elementwise(outside.norm(dim=1), bound, f"{basis.label}, {name}", scale=1.0))
            left_out += exact.count < V.shape[1]
    return told(measured, {"directions left out": left_out})


@invariant(
    "extraction.run_orientation", theorem="T18", capability="train",
    events=("decomposed with the right sign", "decomposed with the wrong sign"), reads=SHOWN, per="setting",
)  # fmt: skip
def run_orientation(trial: TrainTrial) -> Measurement | None:
    """On every axis of a run most of its pairs lie on the positive side, so that a positive coefficient is hack-ward.

    Fails when: the gate lets hack-ward gradients pass and removes those that lead away.

    Likely cause: an axis keeps the sign that the decomposition gave it, or hack and clean are exchanged.
    """
    if trial.bases is None:
        return None
    measured, right, wrong = [], 0, 0
    for basis in trial.bases:
        for name, V in basis.V.items():
            exact = basis.exact[name]
            ayes, noes, unsure, _, _ = exact.votes(V)
            against = (noes - ayes - unsure).clamp(min=0).double()  # that no rounding can turn into a majority
            if len(V):
                measured.append(elementwise(against, 0.0, f"{basis.label}, {name}: majority against"))
            votes = (exact.D @ exact.V.T).sign().sum(dim=0)
            right, wrong = right + int((votes > 0).sum()), wrong + int((votes < 0).sum())
    return worst(measured, occurred={"decomposed with the right sign": right, "decomposed with the wrong sign": wrong})


@invariant(
    "extraction.run_floor", theorem="T18", capability="train", events=("a floor took an axis",), reads=SHOWN,
    per="setting",
)  # fmt: skip
def run_floor(trial: TrainTrial) -> Measurement | None:
    """A run keeps exactly the axes, of the first k, whose singular values reach its noise floors.

    Fails when: noise is routed, or a floor removes axes that the pairs do show.

    Likely cause: squared singular values are compared, or the floor is a share of something else than the largest.
    """
    if trial.bases is None or not any(b.shown.relative_floor or b.shown.global_floor for b in trial.bases):
        return None
    measured, taken = [], 0
    for basis in trial.bases:
        for name, kept in basis.kept.items():
            off = abs(len(basis.V[name]) - kept.count)
            measured.append(Measurement(off, 0.0, f"{basis.label}, {name}: number of axes"))
            taken += basis.exact[name].count - kept.count
    return told(measured, {"a floor took an axis": taken})


@invariant(
    "extraction.run_separation", theorem="T18", capability="train", events=("several pairs held out",),
    reads="what its basis separates of held-out pairs", per="setting",
)  # fmt: skip
def run_separation(trial: TrainTrial) -> Measurement | None:
    """The share of held-out pairs that a run says its basis separates is the share that it does, and none of their
    prompts is among those that the basis has seen.

    A pair counts if the sum of V (g_hack - g_clean) over all modules and axes is positive.

    Fails when: a basis is trusted for what it shows on the pairs that it was made of.

    Likely cause: the share is taken on the pairs seen, or pairs are held out by their number and not by their prompt.
    """
    looked = [basis for basis in trial.bases or () if basis.shown.separation is not None and basis.shown.held_out]
    if not looked:
        return None
    measured = []
    for basis in looked:
        seen = {tuple(pair.prompt.tolist()) for pair in basis.shown.pairs}
        known = sum(tuple(pair.prompt.tolist()) in seen for pair in basis.shown.held_out)
        measured.append(Measurement(known, 0.0, f"{basis.label}: held-out pairs about a prompt that was seen"))
        D, off = basis.differences(basis.shown.held_out)
        sums = torch.stack([(D[name] @ V.T).sum(dim=1) for name, V in basis.V.items()]).sum(dim=0)  # (pairs,)
        axes = sum(len(V) for V in basis.V.values())
        right, wrong = int((sums > axes * off).sum()), int((sums < -axes * off).sum())
        n, said = len(off), (basis.shown.separation or 0.0) * len(off)
        beyond = max(right - said, said - (n - wrong), 0.0)  # the rest of them rounding may decide
        bound = 2 * n * torch.finfo(torch.float64).eps
        measured.append(Measurement(beyond, bound, f"{basis.label}: held-out pairs separated", scale=float(n)))
    return worst(measured, occurred={"several pairs held out": sum(len(b.shown.held_out) > 1 for b in looked)})


def told(measured: list[Measurement], occurred: dict[str, int]) -> Measurement:
    """The worst; one that nothing can fail where rounding left nothing to measure."""
    blurred = Measurement(0.0, math.inf, "nothing that rounding leaves", scale=1.0)
    return worst([m for m in measured if m.can_fail or not m.holds] or [blurred], occurred=occurred)
