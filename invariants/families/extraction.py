"""extraction.*: the hack basis of contrastive pairs.

D = rows g_hack - g_clean        V = its first right singular vectors, each signed so that most pairs have d . V_i > 0
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from invariants.bounds import unit_roundoff
from invariants.contracts import ExtractionSetting
from invariants.measurement import Measurement, elementwise, same_bits, worst
from invariants.registry import invariant
from invariants.trials import ExtractionTrial

FLOORS = (0.0, 0.15, 0.3, 0.6, 0.9)


def has_floors(setting: ExtractionSetting) -> str | None:
    """There is a floor to raise."""
    return None if setting.floors else "the extraction has no noise floor"


def ties_by_the_sum(setting: ExtractionSetting) -> str | None:
    """The rule for ties is the one that is checked."""
    return None if setting.tie == "sum" else "ties are decided by a rule of its own"


def judged(measured: list[Measurement], trial: ExtractionTrial, occurred: Mapping[str, bool | int]) -> Measurement:
    """The worst of what could be measured; a bound that allows everything where rounding left nothing to measure."""
    blurred = Measurement(0.0, math.inf, trial.case.label, scale=1.0)
    return worst([m for m in measured if m.can_fail or not m.holds] or [blurred], occurred=occurred)


def rows_alike(
    trial: ExtractionTrial, got: Mapping[str, Tensor], expected: Mapping[str, Tensor], factor: float = 1.0
) -> Iterator[Measurement]:
    """Axis by axis the distance of two bases, against `factor` times what rounding may turn an axis.

    Axes whose sign rounding may decide, or whose gap it may close, are not compared.
    """
    for name, exact in trial.exact.items():
        where = f"{trial.case.label}, {name}"
        if exact.countable and len(got[name]) != len(expected[name]):
            yield Measurement(abs(len(got[name]) - len(expected[name])), 0.0, f"{where}: number of axes")
        compared = zip(got[name], expected[name], exact.turns, trial.sides(name), strict=False)
        for i, (mine, theirs, turn, side) in enumerate(compared):
            if side:
                yield elementwise((mine - theirs).norm(), factor * turn, f"{where}, axis {i}", scale=1.0)


@invariant("extraction.orthonormal", theorem="T18", capability="extraction", events=("several axes",))
def orthonormal(trial: ExtractionTrial) -> Measurement:
    """The axes of a module, at most k, are orthonormal: V V^T = I.

    Each is rounded once when it is stored, which moves an inner product of unit vectors by at most 2 u + u^2; before
    that the decomposition is orthonormal to p u.

    Fails when: the split along these axes removes more, or less, than the component of a gradient.

    Likely cause: an axis that is in the basis twice, or a mean difference that is not normalised.
    """
    u, measured = unit_roundoff(trial.dtype), []
    for name, V in trial.run().items():
        where = f"{trial.case.label}, {name}"
        excess = max(0, len(V) - trial.case.k)
        measured.append(Measurement(excess, 0.0, f"{where}: more than {trial.case.k} axes"))
        bound = 2 * u + u * u + trial.exact[name].growth * u
        defect = V @ V.T - torch.eye(len(V), dtype=torch.float64)
        if len(V):
            measured.append(elementwise(defect.flatten(), bound, where, scale=1.0))
    several = any(exact.count > 1 for exact in trial.exact.values())
    return judged(measured, trial, {"several axes": several})


@invariant("extraction.span", theorem="T18", capability="extraction", events=("directions left out", "rank below k"))
def span(trial: ExtractionTrial) -> Measurement:
    """The axes span what the pairs differ in most: the first k right singular vectors of D, or all of its row space.

    With error E in D the span turns by at most |E| / (gap - |E|), where gap is the distance between the last singular
    value inside and the first outside (Wedin 1972; Stewart and Sun 1990, theorem V.4.4).

    Fails when: routing acts on directions that the pairs do not show.

    Likely cause: differences that were centred, the weakest directions instead of the strongest, or directions of
    rounding noise where there are fewer than k.
    """
    measured = []
    for name, exact in trial.exact.items():
        V, where = trial.run()[name], f"{trial.case.label}, {name}"
        if exact.countable:
            measured.append(Measurement(abs(len(V) - exact.count), 0.0, f"{where}: number of axes"))
        if exact.count == 0 or len(V) == 0:
            continue
        gap = float(exact.S[exact.count - 1]) - exact.below(exact.count)
        turned = exact.off / (gap - exact.off) if gap > 2 * exact.off else math.inf
        bound = turned + (exact.growth + 2) * unit_roundoff(trial.dtype)
        outside = V - (V @ exact.V.T) @ exact.V
        measured.append(elementwise(outside.norm(dim=1), bound, where, scale=1.0))
    every = trial.exact.values()
    occurred = {
        "directions left out": any(0 < exact.count < exact.rank for exact in every),
        "rank below k": any(exact.rank < exact.k for exact in every),
    }
    return judged(measured, trial, occurred)


@invariant(
    "extraction.orientation", theorem="T18", capability="extraction",
    events=("an outlier outvoted", "decomposed with the right sign", "decomposed with the wrong sign"),
)  # fmt: skip
def orientation(trial: ExtractionTrial) -> Measurement:
    """On every axis most pairs lie on the positive side, so that a positive coefficient means hack-ward.

    Fails when: the gate lets hack-ward gradients pass and removes those that lead away.

    Likely cause: the sign is that of the mean or the sum, which one outlier pair can flip, or hack and clean are
    exchanged.
    """
    measured = []
    for name, V in trial.run().items():
        ayes, noes, unsure, _, _ = trial.exact[name].votes(V)
        against = (noes - ayes - unsure).clamp(min=0).double()  # that no rounding can turn into a majority
        if len(V):
            measured.append(elementwise(against, 0.0, f"{trial.case.label}, {name}: majority against"))
    outvoted, right, wrong = 0, 0, 0
    for exact in trial.exact.values():
        projection = exact.D @ exact.V.T
        votes = projection.sign().sum(dim=0)
        outvoted += int((votes * projection.sum(dim=0) < 0).sum())
        right, wrong = right + int((votes > 0).sum()), wrong + int((votes < 0).sum())
    return judged(measured, trial, {
        "an outlier outvoted": outvoted, "decomposed with the right sign": right,
        "decomposed with the wrong sign": wrong,
    })  # fmt: skip


@invariant(
    "extraction.tie", theorem="T18", capability="extraction", applies=ties_by_the_sum,
    events=("a tied vote", "decomposed with the wrong sign"),
)  # fmt: skip
def tie(trial: ExtractionTrial) -> Measurement:
    """Where as many pairs vote for an axis as against it, the summed projection is positive.

    Fails when: the sign of such an axis is left to the decomposition, and so to chance.

    Likely cause: a vote of zero counts as a majority, or the axis keeps the sign that it has.
    """
    measured, ties, wrong = [], 0, 0
    for name, V in trial.run().items():
        exact = trial.exact[name]
        ayes, noes, unsure, total, off = exact.votes(V)
        for i in torch.nonzero((ayes == noes) & (unsure == 0)).flatten().tolist():
            where = f"{trial.case.label}, {name}, axis {i}"
            measured.append(elementwise(total[i].clamp(max=0), off[i], where, scale=float(total[i].abs())))
        projection = exact.D @ exact.V.T
        tied = (projection.sign().sum(dim=0) == 0) & (projection.sum(dim=0) != 0)
        ties, wrong = ties + int(tied.sum()), wrong + int((tied & (projection.sum(dim=0) < 0)).sum())
    return judged(measured, trial, {"a tied vote": ties, "decomposed with the wrong sign": wrong})


@invariant("extraction.permutation", theorem="T18", capability="extraction", events=("pairs in another order",))
def permutation(trial: ExtractionTrial) -> Measurement:
    """The order of the pairs changes nothing but rounding, where the singular values are distinct.

    Fails when: two runs on the same pairs route along different axes.

    Likely cause: the first pair decides the sign, or pairs enter with weights that depend on their place.
    """
    order = [*range(1, trial.case.pairs), 0]
    measured = list(rows_alike(trial, trial.run(order=order), trial.run(), factor=2))
    moved = any(not torch.equal(exact.D[order], exact.D) for exact in trial.exact.values())
    return judged(measured, trial, {"pairs in another order": moved})


@invariant("extraction.antisymmetry", theorem="T18", capability="extraction", events=("axes flipped",))
def antisymmetry(trial: ExtractionTrial) -> Measurement:
    """Exchanging hack and clean flips every axis, where the singular values are distinct and the vote is decided.

    Fails when: the sign of an axis says nothing about which completion is the hack.

    Likely cause: a sign convention of the decomposition (the largest entry positive), or an absolute value.
    """
    exchanged = {name: -V for name, V in trial.run(swapped=True).items()}
    flipped = any(exact.count for exact in trial.exact.values())
    return judged(list(rows_alike(trial, exchanged, trial.run(), factor=2)), trial, {"axes flipped": flipped})


@invariant(
    "extraction.noise_floor", theorem="T18", capability="extraction", applies=has_floors,
    events=("a floor took an axis",),
)  # fmt: skip
def noise_floor(trial: ExtractionTrial) -> Measurement:
    """An axis is kept exactly if its singular value reaches the floor, so that a higher floor never adds one.

    The relative floor is a share of the module's largest singular value, the global one of the largest of all modules,
    which may leave a module of noise without axes.

    Fails when: noise is routed, or a floor removes axes that the pairs do show.

    Likely cause: squared singular values are compared, or the floor is relative to something else than the largest.
    """
    measured, taken = [], 0
    loudest = max(float(exact.S[0]) for exact in trial.exact.values())
    loudest_off = max(exact.off for exact in trial.exact.values())
    for kind in trial.setting.floors:
        before: dict[str, Tensor] | None = None
        for floor in FLOORS:
            got = trial.run(**{f"{kind}_floor": floor})
            for name, exact in trial.exact.items():
                where = f"{trial.case.label}, {name}, {kind} floor {floor:.2f}"
                if before is not None:
                    added = max(0, len(got[name]) - len(before[name]))
                    measured.append(Measurement(added, 0.0, f"{where}: axes that the floor below has not"))
                size, size_off = (loudest, loudest_off) if kind == "global" else (float(exact.S[0]), exact.off)
                S = exact.S[: exact.count]
                kept = int((floor * size <= S).sum())
                taken += exact.count - kept
                sure = bool(((S - floor * size).abs() > exact.off + floor * size_off).all())
                if sure and exact.countable:
                    measured.append(Measurement(abs(len(got[name]) - kept), 0.0, f"{where}: number of axes"))
            before = got
    return judged(measured, trial, {"a floor took an axis": taken})


@invariant("extraction.isolation", theorem="T18", capability="extraction", events=("several pairs",))
def isolation(trial: ExtractionTrial) -> Measurement:
    """The axes are those of the gradients of each completion alone, whatever `.grad` held before.

    Compared with the singular vectors of the exactly known D: an axis may turn by 2 |E| / (gap - |E|).

    Fails when: a row of D is not the gradient of one hack completion less that of one clean completion.

    Likely cause: gradients accumulate over the two completions of a pair, over pairs, or on top of a training step's.
    """
    handed = trial.handed()
    draw = torch.Generator().manual_seed(5)
    for parameter in handed.parameters.values():
        parameter.grad = torch.randn(parameter.shape, dtype=torch.float64, generator=draw).to(trial.dtype)
    got = trial.extract(handed)
    expected = {name: trial.sides(name)[:, None] * exact.V for name, exact in trial.exact.items()}
    return judged(list(rows_alike(trial, got, expected)), trial, {"several pairs": trial.case.pairs > 1})


@invariant(
    "extraction.ablates_quarantine", theorem="T18", capability="extraction",
    events=("a quarantine that would turn the axes",),
)  # fmt: skip
def ablates_quarantine(trial: ExtractionTrial) -> Measurement | None:
    """A live quarantine changes nothing: the gradients are those of the model as deployed.

    Fails when: a basis that is refreshed in the course of routing rotates off the hack direction.

    Likely cause: the gradients are taken through deployed + quarantine, which has unlearned part of the hack already.
    """
    if not trial.case.curved:
        return None
    turned = 0
    for name, live in trial.exact_live.items():
        cosines = (live.V[: trial.exact[name].count] * trial.exact[name].V[: live.count]).sum(dim=1)
        turned += int((cosines.abs() < 0.9).sum())
    measured = list(rows_alike(trial, trial.run(live=True), trial.run(), factor=2))
    return judged(measured, trial, {"a quarantine that would turn the axes": turned})


@invariant("extraction.leaves_no_trace", theorem="T18", capability="extraction", events=("gradients that depend on x",))
def leaves_no_trace(trial: ExtractionTrial) -> Measurement:
    """Afterwards vectors, their `.grad` and `requires_grad` are what they were, no ablation is left on, and the axes
    carry no graph.

    Fails when: looking at the basis changes the training that goes on.

    Likely cause: a backward pass into `.grad`, a quarantine that is zeroed and not put back, or an SVD under autograd.
    """
    measured, label = [], trial.case.label
    for filled in (False, True):
        handed = trial.handed(live=True)
        before = {}
        for name, parameter in handed.parameters.items():
            parameter.grad = torch.ones_like(parameter) if filled else None
            before[name] = parameter.detach().clone()
        axes = trial.raw(handed)
        for name, parameter in handed.parameters.items():
            measured.append(same_bits(parameter.detach(), before[name], f"{label}, {name}"))
            if parameter.grad is None or not filled:
                same = (parameter.grad is None) == (not filled)
                measured.append(Measurement(0.0 if same else math.inf, 0.0, f"{label}, {name}: .grad"))
            else:
                measured.append(same_bits(parameter.grad, torch.ones_like(parameter), f"{label}, {name}: .grad"))
            trainable = parameter.requires_grad
            measured.append(Measurement(0.0 if trainable else math.inf, 0.0, f"{label}, {name}: requires_grad"))
        measured.append(Measurement(handed.depth, 0.0, f"{label}: ablations left on"))
        graph = any(V.requires_grad for V in axes.values())
        measured.append(Measurement(math.inf if graph else 0.0, 0.0, f"{label}: the axes carry a graph"))
    return worst(measured, occurred={"gradients that depend on x": trial.case.curved})
