"""What is claimed of a configuration, against what it does: claims are sound, and the main table is exact."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any, NamedTuple, get_args

import pytest
import torch
from base_optimizers import BASES, Build, vectors
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.claims import LEAKS, Guarantee, claims_of, guarantees
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.probes import Measured, MeasureOnce, measure
from projected_grpo.routing import Routing
from projected_grpo.split import SplitRule
from projected_grpo.vectors import VectorPair

# The other two policies are in the truth table below, under the default rule.
SETTINGS = [("gradient", "before"), ("gradient", "joint"), ("update", "before"), ("displacement", "before")]
SHAPES = {"q": (3, 12), "k": (2, 12), "v": (1, 7)}
STEPS = 12
LIMIT = 5.0  # about the median norm of the gradients below


def make_basis() -> Basis:
    generator = torch.Generator().manual_seed(0)
    normal = {name: torch.randn(r, k, generator=generator, dtype=torch.float64) for name, (k, r) in SHAPES.items()}
    return Basis({name: torch.linalg.qr(x)[0].T for name, x in normal.items()})


class Ran(NamedTuple):
    optimizer: RoutedOptimizer
    worst: dict[str, float]
    away: Tensor  # (steps, axes): how far the deployed vectors are from their start along each axis


def run(build: Build, *, gradients: str = "drifting", **options: Any) -> Ran:
    """Some steps from a start that isn't zero; the largest norm fed and the largest leaks on the way.

    gradients: a drift with noise; the same with another basis from the middle on, after which the leaks count; or pairs
    of noise and its negative.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    pairs = {}
    for name, (_, r) in SHAPES.items():
        start = torch.randn(r, generator=generator, dtype=torch.float64)
        pairs[name] = VectorPair(nn.Parameter(start), nn.Parameter(torch.zeros_like(start)))
    base = build([vector for pair in pairs.values() for vector in pair if vector is not None])
    optimizer = RoutedOptimizer(base, pairs, make_basis(), **options)
    worst = {"norm": 0.0, "update": 0.0, "displacement": 0.0}
    # A drift, so that something is learned, and noise, so that single gradients point elsewhere.
    drift = {name: torch.randn(r, generator=generator, dtype=torch.float64) for name, (_, r) in SHAPES.items()}
    origin, away = {name: pair.deployed.detach().clone() for name, pair in pairs.items()}, []
    for step in range(STEPS):
        for name, (_, r) in SHAPES.items():
            noise = torch.randn(r, generator=generator, dtype=torch.float64)
            if gradients != "paired":
                pairs[name].deployed.grad = 0.5 * drift[name] + noise
            else:
                last = pairs[name].deployed.grad
                pairs[name].deployed.grad = -last if step % 2 and last is not None else noise
        if gradients == "refreshed" and step == STEPS // 2:
            optimizer.refresh(Basis({name: -V.roll(1, dims=1) for name, V in optimizer.basis.items()}))
            worst["update"] = worst["displacement"] = 0.0
        optimizer.step()
        shown = optimizer.diagnostics()
        worst["norm"] = max(worst["norm"], shown.grad_norm_post_clip or 0.0)
        worst["update"] = max(worst["update"], shown.hackward_share_update or 0.0)
        worst["displacement"] = max(worst["displacement"], shown.hackward_share_parameters or 0.0)
        along = [optimizer.basis[name] @ (pairs[name].deployed.detach() - p) for name, p in origin.items()]
        away.append(torch.cat(along).abs())
    return Ran(optimizer, worst, torch.stack(away))


@cache
def vanilla(base: str, max_norm: float | None, gradients: str = "drifting") -> Ran:
    """Training without a split, whatever the space, the policy and the rule."""
    return run(BASES[base], gradients=gradients, intervention="none", max_norm=max_norm)


@cache
def trained(
    base: str,
    arm: str,
    space: str,
    clip: str,
    rule: SplitRule,
    max_norm: float | None,
    gradients: str = "drifting",
    retained: float = 1.0,
) -> Ran:
    options: dict[str, Any] = {"space": space, "clip": clip, "rule": rule, "max_norm": max_norm, "retained": retained}
    return run(BASES[base], gradients=gradients, intervention=arm, **options)


def observed(
    base: str,
    space: str,
    clip: str,
    rule: SplitRule,
    max_norm: float | None,
    arm: str = "route",
    retained: float = 1.0,
) -> dict[str, bool]:
    """Whether each guarantee was kept on one sequence of gradients, by an arm; erase_match by route and erase.

    Not unbiased, which is about the mean of many: tests/test_noise.py.
    """
    settings = (space, clip, rule, max_norm)
    this, worst, _ = trained(base, arm, *settings, retained=retained)
    route = trained(base, "route", *settings).optimizer
    erase = this if arm == "erase" else trained(base, "erase", *settings).optimizer
    none = {name: pair.deployed.detach() for name, pair in vanilla(base, max_norm).optimizer.vectors.items()}
    after = trained(base, arm, *settings, "refreshed", retained)
    paired = trained(base, arm, *settings, "paired", retained).away
    reference = vanilla(base, max_norm, "paired").away

    def far(difference: Callable[[str], Tensor], scale: Callable[[str], Tensor]) -> float:
        return max(float(difference(n).detach().norm()) / (float(scale(n).detach().norm()) or 1.0) for n in SHAPES)

    own, r, e = this.vectors, route.vectors, erase.vectors

    def quarantine(name: str, of: RoutedOptimizer = this) -> Tensor:
        vector = of.vectors[name].quarantine
        assert vector is not None
        return vector

    def outside(name: str, of: RoutedOptimizer = this) -> Tensor:
        V = of.basis[name]
        return quarantine(name, of) - V.T @ (V @ quarantine(name, of))

    small = 1e-9  # rounding is 1e-13 here, and a violation at least 1e-3
    return {
        "keeps_sum": far(lambda n: own[n].deployed + quarantine(n) - none[n], lambda n: none[n]) < small,
        # There is nothing under none that the two arms could disagree about.
        "erase_match": arm == "none" or far(lambda n: r[n].deployed - e[n].deployed, lambda n: e[n].deployed) < small,
        "covers_both": max_norm is None or worst["norm"] <= max_norm * (1 + small),
        "span": far(outside, quarantine) < small,
        "no_update_leak": worst["update"] < small,
        "no_displacement_leak": worst["displacement"] < small,
        "no_ratchet": bool((paired <= reference + small).all()),
        "refreshed_span": far(lambda n: outside(n, after.optimizer), lambda n: quarantine(n, after.optimizer)) < small,
        "refreshed_update": after.worst["update"] < small,
        "refreshed_displacement": after.worst["displacement"] < small,
    }


@cache
def measured_as(base: str) -> Measured:
    return measure(BASES[base](vectors()))


def claimed(
    base: str,
    space: str,
    clip: str,
    rule: SplitRule,
    max_norm: float | None,
    arm: str = "route",
    retained: float = 1.0,
) -> dict[str, bool]:
    routing = Routing(intervention=arm, space=space, clip=clip, rule=rule, max_norm=max_norm, retained=retained)
    return {name: claim.holds for name, claim in claims_of(routing, measured_as(base)).items()}


def test_explain_prints_what_is_claimed() -> None:
    pairs = {"q": VectorPair(nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(12)))}
    for name, clip in product(("momentum", "AdamW", "coupled"), ("before", "joint")):
        base = BASES[name]([vector for vector in pairs["q"] if vector is not None])
        optimizer = RoutedOptimizer(
            base, pairs, Basis({"q": torch.eye(2, 12)}), space="gradient", clip=clip, max_norm=1.0
        )
        shown = optimizer.explain()
        claims = claims_of(optimizer.routing, measured_as(name))
        assert optimizer.guarantees() == claims
        assert {claim.holds for claim in claims.values()} == {True, False}
        for guarantee, claim in claims.items():
            assert f"{guarantee:<24}{'yes' if claim.holds else 'no':<5}{claim.why}" in shown
        assert ("not linear" in shown) == (name != "momentum")
        assert ("not separable" in shown) == (name == "coupled")


ALL = [name for name in get_args(Guarantee) if name != "unbiased"]
# What fails in a space whatever the optimizer is; momentum and preconditioners carry on what the last basis let pass.
ALWAYS = {
    "gradient": {"no_ratchet", "refreshed_span", "refreshed_update", "refreshed_displacement"},
    "update": {"no_ratchet", "refreshed_span", "refreshed_displacement"},
    "displacement": {"refreshed_update"},
}
FAILS = {
    ("momentum", "gradient", "before"): (),
    ("momentum", "gradient", "joint"): ("erase_match",),
    ("momentum", "gradient", "separate"): ("keeps_sum", "covers_both"),
    ("momentum", "gradient", "deployed_only"): ("keeps_sum", "covers_both"),
    ("AdamW", "gradient", "before"): ("keeps_sum", "span", "no_update_leak", "no_displacement_leak"),
    ("AdamW", "gradient", "joint"): ("keeps_sum", "erase_match", "span", "no_update_leak", "no_displacement_leak"),
    ("AdamW", "gradient", "separate"): ("keeps_sum", "covers_both", "span", "no_update_leak", "no_displacement_leak"),
    ("AdamW", "gradient", "deployed_only"): (
        "keeps_sum", "covers_both", "span", "no_update_leak", "no_displacement_leak"
    ),
    **{(base, "update", "before"): () for base in ("momentum", "AdamW", "coupled", "l1")},
    **{(base, "displacement", "before"): ("no_update_leak",) for base in ("momentum", "AdamW", "coupled", "l1")},
}  # fmt: skip


@pytest.mark.parametrize(("base", "space", "clip"), FAILS)
def test_the_truth_table_is_claimed_and_observed(base: str, space: str, clip: str) -> None:
    """Under the default rule, with a clip that fires: exactly these fail, in words and in deeds."""
    fails = {*FAILS[base, space, clip], *ALWAYS[space]}
    expected = {name: name not in fails for name in ALL}
    assert claimed(base, space, clip, SplitRule(), LIMIT) == expected | {"unbiased": False}
    assert observed(base, space, clip, SplitRule(), LIMIT) == expected


@pytest.mark.parametrize("base", ["SGD", "AdamW", "coupled"])
@pytest.mark.parametrize(("space", "clip"), SETTINGS)
def test_without_an_intervention_both_leaks_are_open_in_words_and_in_deeds(space: str, clip: str, base: str) -> None:
    expected = {name: name not in LEAKS for name in ALL}
    assert claimed(base, space, clip, SplitRule(), LIMIT, "none") == expected | {"unbiased": True}
    assert observed(base, space, clip, SplitRule(), LIMIT, "none") == expected


RULES = [
    SplitRule(gate="no_gate"),
    SplitRule(gate="reverse"),
    SplitRule(gate="predictable"),
    SplitRule(gate="predictable", overshoot=2.5),
    SplitRule(gate="reverse", overshoot=0.5),
    SplitRule(overshoot=0.6),
    SplitRule(overshoot=1.5),
    SplitRule(gate="no_gate", overshoot=1.5),
    SplitRule(preserve_magnitude=True),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize(("space", "clip"), SETTINGS)
def test_claims_are_sound_under_every_rule(space: str, clip: str, rule: SplitRule) -> None:
    """What is claimed is observed; the reverse is not asked, since one run may keep what no theorem promises."""
    for arm in ("none", "erase", "route"):
        claims = claimed("momentum", space, clip, rule, LIMIT, arm)
        kept = observed("momentum", space, clip, rule, LIMIT, arm)
        assert [name for name, holds in claims.items() if holds and not kept.get(name, True)] == [], arm
    if rule.preserve_magnitude:
        assert not claims["keeps_sum"]
        assert not kept["keeps_sum"]


@pytest.mark.long
@pytest.mark.parametrize("base", [name for name in BASES if name != "late sign"])
def test_claims_are_sound_for_every_base(base: str) -> None:
    settings = [*((*setting, LIMIT) for setting in SETTINGS), ("gradient", "before", None)]
    for (space, clip, limit), arm in product(settings, ("none", "erase", "route")):
        claims = claimed(base, space, clip, SplitRule(), limit, arm)
        kept = observed(base, space, clip, SplitRule(), limit, arm)
        assert [name for name, holds in claims.items() if holds and not kept.get(name, True)] == [], (
            space,
            clip,
            limit,
            arm,
        )
        assert limit is not None or claims["covers_both"]


@pytest.mark.parametrize("retained", [pytest.param(0.0, marks=pytest.mark.long), 0.5])
@pytest.mark.parametrize("rule", [SplitRule(), *RULES], ids=str)
@pytest.mark.parametrize("space", ["update", "displacement"])
def test_claims_are_sound_for_erase_that_forgets(space: str, rule: SplitRule, retained: float) -> None:
    for base in ("momentum", "AdamW"):
        claims = claimed(base, space, "before", rule, LIMIT, "erase", retained)
        kept = observed(base, space, "before", rule, LIMIT, "erase", retained)
        assert [name for name, holds in claims.items() if holds and not kept.get(name, True)] == [], base
        assert not claims["erase_match"]
    if space == "displacement" and rule == SplitRule():
        assert not kept[
            "erase_match"
        ]  # a linear gate finds nothing along the basis in what it kept, so forgets nothing


def test_unequal_hyperparameters_lose_the_sum() -> None:
    pair = VectorPair(nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4)))
    groups = [{"params": [pair.deployed]}, {"params": [pair.quarantine], "lr": 0.2}]
    optimizer = RoutedOptimizer(
        torch.optim.SGD(groups, lr=0.1), {"q": pair}, Basis({"q": torch.eye(1, 4)}), space="gradient"
    )
    assert "different hyperparameters" in optimizer.explain()
    groups[1]["lr"] = 0.1
    optimizer.param_groups[1]["lr"] = 0.1
    assert "different hyperparameters" not in optimizer.explain()


def test_other_interventions() -> None:
    settings: dict[str, Any] = {
        "space": "update", "clip": "before", "rule": SplitRule(), "max_norm_set": True,
        "linear": True, "separable": True, "isotropic": True, "nonnegative": True,
    }  # fmt: skip
    erase, none = guarantees(intervention="erase", **settings), guarantees(intervention="none", **settings)
    assert {name for name, claim in erase.items() if not claim.holds} == {
        "keeps_sum", "no_ratchet", "unbiased", "refreshed_displacement"
    }  # fmt: skip
    assert all("nothing is split" in claim.why for claim in none.values())
    pair = VectorPair(nn.Parameter(torch.zeros(4)), None)
    base = torch.optim.SGD([pair.deployed], lr=0.0)
    optimizer = RoutedOptimizer(base, {"q": pair}, Basis({"q": torch.eye(1, 4)}), intervention="erase")
    assert "may run away from the model that is seen" in optimizer.explain()
    forgets = RoutedOptimizer(
        base, {"q": pair}, Basis({"q": torch.eye(1, 4)}), intervention="erase", space="update", retained=0.5
    )
    assert "keeps 0.5 of what erase drops" in forgets.explain()
    assert "route's point keeps all of it" in forgets.guarantees()["erase_match"].why
    assert "did not move its probes" in optimizer.explain()


def test_an_optimizer_that_did_not_move_yet_is_measured_again() -> None:
    base = torch.optim.SGD([nn.Parameter(torch.zeros(4))], lr=0.0)
    once = MeasureOnce()
    assert not once.of(base).linear
    base.param_groups[0]["lr"] = 0.1
    assert once.of(base).linear
