"""The package and the executable specification on the same gradients, from a short real run.

In float64 every setting agrees to 1e-12 over the whole run. In float32 and bfloat16 two trajectories drift apart as
rounding accumulates, so single steps from identical state are compared, within bounds that are derived from Higham 2002
(chapters 2 and 3): h(n) = n u / (1 - n u) for n roundings in a row.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import reference
from projected_grpo.basis import Basis
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.split import GroupedSplit, SplitRule
from projected_grpo.vectors import VectorPair
from reference.loop import LoopConfig, run

Vectors = dict[str, Tensor]


class Recorded(NamedTuple):
    """What the run fed its optimizer, and a limit that clips about half of its steps."""

    gradients: list[Vectors]  # step → module → (r,)
    basis: Vectors  # module → (k, r)
    start: Vectors  # module → (r,), not zero, so that decay acts
    max_norm: float


@pytest.fixture(scope="session")
def recorded() -> Recorded:
    *_, (_, tape) = run(LoopConfig(steps=8))
    gradients = list(tape)
    norms = sorted(float(reference.global_norm(g.values())) for g in gradients)
    generator = torch.Generator().manual_seed(3)
    start = {n: 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in tape.start.items()}
    max_norm = (norms[3] + norms[4]) / 2
    assert norms[3] < max_norm < norms[4]
    assert any(V.shape[0] for V in tape.basis.values())
    return Recorded(gradients, tape.basis, start, max_norm)


class Case(NamedTuple):
    """One optimizer in both worlds."""

    specified: reference.Optimizer
    build: Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def sgd(**options: object) -> Case:
    return Case(reference.SGD(**options), lambda p: torch.optim.SGD(p, **options))


def adamw(**options: object) -> Case:
    return Case(reference.AdamW(**options), lambda p: torch.optim.AdamW(p, **options))


CASES = {
    "plain": sgd(lr=0.7),
    "momentum": sgd(lr=0.5, momentum=0.9),
    "nesterov": sgd(lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.02),
    "dampening": sgd(lr=0.5, momentum=0.8, dampening=0.3, weight_decay=0.1),
    "adamw": adamw(lr=0.03, weight_decay=0.1),
}
SETTINGS = [
    *product(["gradient"], ["before", "joint", "separate", "deployed_only"]),
    ("update", "before"),
    ("displacement", "before"),
]
RULES = {
    "default": {},
    "no_gate": {"gate": "no_gate"},
    "reverse": {"gate": "reverse"},
    "predictable": {"gate": "predictable"},
    "overshoot": {"overshoot": 1.5},
    "preserve": {"preserve_magnitude": True},
}


def pairs_at(deployed: Vectors, quarantine: Vectors | None = None) -> dict[str, VectorPair]:
    zeros = {name: torch.zeros_like(p) for name, p in deployed.items()}
    return {
        name: VectorPair(nn.Parameter(p.clone()), nn.Parameter((quarantine or zeros)[name].clone()))
        for name, p in deployed.items()
    }


def parameters(pairs: dict[str, VectorPair]) -> list[nn.Parameter]:
    return [vector for pair in pairs.values() for vector in pair if vector is not None]


def relative(ours: Vectors, theirs: Vectors) -> float:
    """Largest difference over all modules, relative to the largest entry."""
    size = max(float(x.abs().max()) for x in theirs.values())
    return max(float((ours[name].detach() - x).abs().max()) for name, x in theirs.items()) / (size or 1.0)


# Every optimizer under the default rule, and every other rule under momentum.
COMBINATIONS = [
    *product(SETTINGS, ["none", "erase", "route"], CASES, ["default"]),
    *product(SETTINGS, ["erase", "route"], ["momentum"], [rule for rule in RULES if rule != "default"]),
]


@pytest.mark.parametrize(("setting", "intervention", "case", "rule"), COMBINATIONS)
def test_every_setting_agrees_in_float64(
    recorded: Recorded, setting: tuple[str, str], intervention: str, case: str, rule: str
) -> None:
    space, clip = setting
    routing = reference.Routing(
        optimizer=CASES[case].specified, intervention=intervention, space=space, clip=clip,
        max_norm=recorded.max_norm, rule=reference.SplitRule(**RULES[rule]),
    )  # fmt: skip
    state = reference.initial(routing, recorded.start)
    pairs = pairs_at(recorded.start)
    optimizer = RoutedOptimizer(
        CASES[case].build(parameters(pairs)), pairs, Basis(recorded.basis), intervention=intervention, space=space,
        clip=clip, max_norm=recorded.max_norm, rule=SplitRule(**RULES[rule]),
    )  # fmt: skip
    clipped = 0
    for g in recorded.gradients:
        state = reference.routed_step(routing, state, g, recorded.basis)
        for name, gradient in g.items():
            pairs[name].deployed.grad = gradient
        optimizer.step()
        shown = optimizer.diagnostics()
        assert shown.grad_norm_pre_clip == pytest.approx(state.norm_pre_clip, rel=1e-12)
        assert shown.grad_norm_post_clip == pytest.approx(state.norm_post_clip, rel=1e-12)
        clipped += state.norm_post_clip < state.norm_pre_clip * (1 - 1e-6)
        assert relative({n: pair.deployed for n, pair in pairs.items()}, state.deployed) <= 1e-12
        quarantine = {n: pair.quarantine for n, pair in pairs.items() if pair.quarantine is not None}
        assert relative(quarantine, state.quarantine) <= 1e-12
    assert clipped >= 3 or clip == "deployed_only" or rule != "default"
    assert any(x.any() for x in state.quarantine.values()) == (intervention == "route")


# Low precision: one step from identical state


def unit_roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def h(n: int, u: float) -> float:
    return n * u / (1 - n * u)


def rounded(vectors: Vectors, dtype: torch.dtype) -> Vectors:
    return {name: x.to(dtype) for name, x in vectors.items()}


def exactly(vectors: Vectors) -> Vectors:
    return {name: x.double() for name, x in vectors.items()}


def coarse_basis(recorded: Recorded, dtype: torch.dtype) -> Basis:
    return Basis(recorded.basis).to(dtype=dtype)


def through(V: Tensor, x: Tensor) -> Tensor:
    """|V|ᵀ(|V| x), (k, r) and (r,) -> (r,)."""
    return V.double().abs().T @ (V.double().abs() @ x.double())


def removed_error(V: Tensor, g: Tensor, removed: Tensor, strength: float, dtype: torch.dtype) -> Tensor:
    """The split's own bound: h(r + k + 4) in the working dtype, and for half types the rounding of what is stored."""
    k, r = V.shape
    working = unit_roundoff(torch.float32)
    stored = unit_roundoff(dtype) if dtype != torch.float32 else 0.0
    return strength * h(r + k + 4, working) * through(V, g.abs()) + stored * removed.double().abs()


LOW = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("rule", ["default", "no_gate", "reverse", "overshoot"])
def test_split_in_low_precision(recorded: Recorded, dtype: torch.dtype, rule: str) -> None:
    basis = coarse_basis(recorded, dtype)
    split, u, differed = GroupedSplit(basis, SplitRule(**RULES[rule])), unit_roundoff(dtype), False
    for gradients in recorded.gradients:
        g = rounded(gradients, dtype)
        parts = split(g)
        for name, V in basis.items():
            wanted = reference.split(g[name].double(), V.double(), reference.SplitRule(**RULES[rule]))
            off = removed_error(V, g[name], parts.removed[name], SplitRule(**RULES[rule]).strength, dtype)
            assert ((parts.removed[name].double() - wanted.removed).abs() <= off).all()
            # one more rounding for the subtraction
            kept_off = off + u * parts.kept[name].double().abs()
            assert ((parts.kept[name].double() - wanted.kept).abs() <= kept_off).all()
            differed |= not torch.equal(parts.removed[name].double(), wanted.removed)
    assert differed


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("intervention", ["erase", "route"])
@pytest.mark.parametrize("space", ["gradient", "update", "displacement"])
def test_one_linear_step_in_low_precision(
    recorded: Recorded, dtype: torch.dtype, intervention: str, space: str
) -> None:
    """p - lr · factor · g from the same state; both worlds start at the same rounded numbers.

    factor = max_norm / norm has the norm's error, h(n/2 + 4) over all n entries, and three more roundings; so has every
    fed entry, on top of the split's error. `lr · x` and the subtraction round once each.
    """
    lr, u, w = 0.7, unit_roundoff(dtype), unit_roundoff(torch.float32)
    basis, start = coarse_basis(recorded, dtype), rounded(recorded.start, dtype)
    n = sum(p.numel() for p in start.values())
    routing = reference.Routing(
        optimizer=reference.SGD(lr=lr), intervention=intervention, space=space, max_norm=recorded.max_norm
    )
    fired, tightest, routed = 0, 0.0, False
    for gradients in recorded.gradients:
        g = rounded(gradients, dtype)
        wanted = reference.routed_step(
            routing, reference.initial(routing, exactly(start)), exactly(g), exactly(dict(basis))
        )
        fired += wanted.norm_post_clip < wanted.norm_pre_clip
        factor = min(1.0, recorded.max_norm / wanted.norm_pre_clip)
        pairs = pairs_at(start)
        optimizer = RoutedOptimizer(
            torch.optim.SGD(parameters(pairs), lr=lr), pairs, basis, intervention=intervention, space=space,
            max_norm=recorded.max_norm,
        )  # fmt: skip
        for name, gradient in g.items():
            pairs[name].deployed.grad = gradient
        optimizer.step()
        for name, V in basis.items():
            p, fed = start[name].double().abs(), factor * g[name].double().abs()
            clipped_off = (h(n // 2 + 8, w) + 2 * u) * fed
            reach = fed + through(V, fed)  # no part is larger than this, elementwise
            if space == "gradient":
                part_off = clipped_off + through(V, clipped_off) + removed_error(V, fed, reach, 1.0, dtype) + u * reach
                off = lr * part_off + 2 * u * (p + lr * reach)
            else:
                # The point's own rounding is as large as an ulp of p, and goes through the split with the move.
                move_off = lr * clipped_off + 2 * u * (p + lr * fed)
                off = move_off + through(V, move_off) + removed_error(V, lr * fed, lr * reach, 1.0, dtype)
                off = off + 3 * u * (p + lr * reach)
            off = off * (1 + h(8, u)) + torch.finfo(dtype).tiny  # second-order terms
            assert ((pairs[name].deployed.double() - wanted.deployed[name]).abs() <= off).all()
            quarantine = pairs[name].quarantine
            assert quarantine is not None
            assert ((quarantine.double() - wanted.quarantine[name]).abs() <= off).all()
            tightest = max(tightest, float(((pairs[name].deployed.detach() - wanted.deployed[name]).abs() / off).max()))
            routed |= bool(quarantine.any())
    assert fired >= 3
    assert tightest > 0.05  # a bound that nothing comes near would not notice much
    # In bfloat16 the point swallows moves below half an ulp of itself, and there is nothing left to split.
    assert routed == (intervention == "route") or (dtype == torch.bfloat16 and space != "gradient")


@pytest.mark.parametrize("dtype", LOW)
def test_adamw_step_by_step_in_low_precision(recorded: Recorded, dtype: torch.dtype) -> None:
    """Each step from the state of a float64 run, rounded, so that errors don't accumulate over steps.

    AdamW divides by sqrt(v) and so turns an absolute error e of a gradient entry into a relative one. With m and v the
    moments after the step, c1 and c2 their bias corrections, and d = sqrt(v / c2) + eps:

        off(m) = (1 - b1) e + 4 u (|b1 m| + (1 - b1) |x|)          off(v) = (1 - b2)(2 |x| e + e²) + 5 u v
        off(d) = off(v) / c2 / sqrt(v / c2) + 4 u d
        off(p) <= lr (off(m) / c1 + |m| / c1 · off(d) / d) / (d - off(d)) + 6 u (|p| + lr |m| / c1 / d)

    where |sqrt(a) - sqrt(b)| <= |a - b| / sqrt(a) was used. Where an entry of the kept gradient is tiny next to the
    gradient it came from, e and with it the bound are large: that is the amplification.
    """
    adam = reference.AdamW(lr=0.03, weight_decay=0.1)
    b1, b2, u = *adam.betas, unit_roundoff(dtype)
    routing = reference.Routing(optimizer=adam, space="gradient")
    basis, state = coarse_basis(recorded, dtype), reference.initial(routing, recorded.start)
    V64, tightest = exactly(dict(basis)), 0.0
    for step, gradients in enumerate(recorded.gradients):
        g = rounded(gradients, dtype)
        low = replace(
            state,
            deployed=exactly(rounded(state.deployed, dtype)),
            quarantine=exactly(rounded(state.quarantine, dtype)),
            states={name: moments(s, dtype) for name, s in state.states.items()},
            quarantine_states={name: moments(s, dtype) for name, s in state.quarantine_states.items()},
        )
        pairs = pairs_at(rounded(low.deployed, dtype), rounded(low.quarantine, dtype))
        base = torch.optim.AdamW(parameters(pairs), lr=adam.lr, weight_decay=adam.weight_decay)
        optimizer = RoutedOptimizer(base, pairs, basis, space="gradient")
        for name, pair in pairs.items():
            for vector, s in zip(pair, (low.states[name], low.quarantine_states[name]), strict=True):
                base.state[vector] = {
                    "step": torch.tensor(float(s["t"])), "exp_avg": s["m"].to(dtype), "exp_avg_sq": s["v"].to(dtype)
                }  # fmt: skip
            pair.deployed.grad = g[name]
        optimizer.step()
        wanted = reference.routed_step(routing, low, exactly(g), V64)
        c1, c2 = 1 - b1 ** (step + 1), 1 - b2 ** (step + 1)
        for name, V in basis.items():
            parts = reference.split(g[name].double(), V64[name])
            e_removed = removed_error(V, g[name], parts.removed, 1.0, dtype)
            e_kept = e_removed + u * parts.kept.abs()
            pair, (before, before_q) = pairs[name], (low.states[name], low.quarantine_states[name])
            for ours, p, x, e, s, theirs in (
                (pair.deployed, low.deployed[name], parts.kept, e_kept, before, wanted.deployed[name]),
                (pair.quarantine, low.quarantine[name], parts.removed, e_removed, before_q, wanted.quarantine[name]),
            ):
                assert ours is not None
                x, v = x.abs(), b2 * s["v"] + (1 - b2) * x * x
                off_m = (1 - b1) * e + 4 * u * (b1 * s["m"].abs() + (1 - b1) * x)
                root = (v / c2).sqrt()
                d = root + adam.eps
                off_v = ((1 - b2) * (2 * x * e + e * e) + 5 * u * v) / c2
                off_d = torch.where(root > 0, off_v / root, off_v.sqrt()) + 4 * u * d
                size = (b1 * s["m"].abs() + (1 - b1) * x) / c1
                lowest = (d - off_d).clamp(min=adam.eps * (1 - 4 * u))
                off = adam.lr * (off_m / c1 + size * off_d / d) / lowest + 6 * u * (p.abs() + adam.lr * size / d)
                off = off * (1 + h(8, u))  # second-order terms
                assert ((ours.double() - theirs).abs() <= off).all()
                tightest = max(tightest, float(((ours.detach() - theirs).abs() / off).max()))
        assert any(not torch.equal(pairs[n].deployed.double(), low.deployed[n]) for n in pairs)
        state = reference.routed_step(routing, state, gradients, recorded.basis)
    assert tightest > 0.05


def moments(state: dict[str, object], dtype: torch.dtype) -> dict[str, object]:
    """An Adam state with both moments rounded to a dtype, in float64."""
    rounded_ones = {key: state[key].to(dtype).double() for key in ("m", "v")}
    return {"t": state["t"], **rounded_ones}
