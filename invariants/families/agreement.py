"""optimizer.matches_reference: agreement with the specification, within what rounding can do to an optimizer."""

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from invariants.bounds import removed_error, unit_roundoff
from invariants.families.optimizer import drift, happened
from invariants.hypotheses import has_a_reference, strength
from invariants.measurement import Events, Measurement, elementwise, worst
from invariants.registry import invariant
from invariants.trajectory import Path
from invariants.trials import StepTrial
from reference import SGD, AdamW, RoutedState


@invariant(
    "optimizer.matches_reference", theorem="T8 to T13", capability="routed_step", applies=has_a_reference,
    events=("something removed", "vectors moved"),
)  # fmt: skip
def matches_reference(trial: StepTrial) -> Measurement | None:
    """Both vectors follow the specification's, under every intervention.

    The bound adds up, step by step, what the rounding of all fed gradients so far can do to a move.

    Fails when: an optimizer, a clip or a space is not what the setting says.

    Likely cause: epsilon inside the root, bias correction, decay coupled instead of decoupled, or another order of
    clip, split and step.
    """
    if trial.direction_is_open:
        return None
    measured = []
    occurred: Events = {}
    fed_errors = {name: list(fed_error(trial, name)) for name in trial.start}
    for intervention in trial.setting.interventions:
        own, exact = trial.run(intervention), trial.reference_run(intervention, max_norm=trial.max_norm)
        if intervention == trial.setting.splitting:
            both = intervention == "erase" or own.quarantine.distance > 0
            occurred = happened(trial, own) | {"vectors moved": both and own.deployed.distance > 0}
        for kind, mine in (("deployed", own.deployed), ("quarantine", own.quarantine)):
            theirs = Path.of({name: p[0] for name, p in mine.items()}, [getattr(state, kind) for state in exact])
            # Outside gradient space the quarantine is a part of the point, and rounded where that is.
            apart = trial.setting.space == "gradient"
            rounding = drift(trial, mine, theirs) if apart else drift(trial, own.deployed, own.quarantine, theirs)
            for name, path in mine.items():
                moves = (sensitivity(trial, state, name, d) for state, d in zip(exact, fed_errors[name], strict=True))
                bound = rounding + torch.stack(list(accumulate(moves)))  # (steps, r)
                where = f"{intervention}, {trial.case.label}, {kind} {name}"
                measured.append(elementwise(path[1:] - theirs[name][1:], bound, where, scale=theirs.distance))
    return worst(measured, occurred=occurred)


def fed_error(trial: StepTrial, name: str) -> Iterator[Tensor]:
    """After each step, the largest rounding so far of a gradient fed to one module, elementwise; (r,) each."""
    rule, u = trial.setting.rule, unit_roundoff(trial.dtype)
    scale = strength(rule)
    V = trial.basis[name]
    factor_error = 0.0
    if trial.max_norm is not None:
        # Whichever norm it is that is clipped: a factor below 1 means that it reaches the limit, up to epsilon.
        factor_error = trial.norm_rounding + trial.setting.clip_epsilon / trial.max_norm
    largest = torch.zeros_like(trial.start[name])
    for g in (gradients[name] for gradients in trial.gradients):
        parts = g.abs() + scale * (V.abs().T @ (V @ g).abs())  # |kept| and |removed| are at most this
        error = 2 * removed_error(g, V, scale, trial.dtype) + (2 * u + factor_error) * parts
        largest = torch.maximum(largest, error)
        yield largest


def sensitivity(trial: StepTrial, state: RoutedState, name: str, d: Tensor) -> Tensor:
    """What errors of at most d (r,) in every gradient so far can change in one step's move, elementwise; (r,).

    SGD: a move is lr times a combination of at most t gradients with weights at most 2 (Nesterov), so 2 lr t d.
    AdamW: both moments are averages of gradients with weights that sum to 1, so m is off by at most d and
    s = sqrt(v) + eps by at most d (triangle inequality), and lr m / s by at most lr (1 + |m| / s) d / (s - d); where s
    does not exceed 2 d the sign itself is open, and the whole step.
    Outside gradient space a move is split with V once more, which scales errors by at most 2 + sum |V|.
    """
    optimizer = trial.setting.reference
    scale = 1.0 if trial.setting.space == "gradient" else 2 + float(trial.basis[name].abs().sum())
    if isinstance(optimizer, SGD):
        return 2 * optimizer.lr * scale * d * len(trial.gradients)
    assert isinstance(optimizer, AdamW), "the invariant applies to these two"
    b1, b2 = optimizer.betas
    moves = torch.zeros_like(d)
    for states in (state.states, state.quarantine_states):
        t, m, v = (states[name][key] for key in ("t", "m", "v"))
        if t == 0:
            continue
        s = (v / (1 - b2**t)).sqrt() + optimizer.eps
        length = (m / (1 - b1**t)).abs() / s
        share = torch.where(s > 2 * d, d / (s - d), torch.ones_like(d))
        moves = torch.maximum(moves, 2 * optimizer.lr * scale * (1 + length) * share)
    return moves
