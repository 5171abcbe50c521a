"""The package's clip: what each policy feeds, from the norms written out, and that nothing handed in is written to."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from projected_grpo.clip import Fed, clip_unsplit, split_and_clip
from projected_grpo.norms import global_norm
from projected_grpo.split import GroupedSplit, SplitRule, split

R, K, LIMIT = 16, 4, 0.5
U = torch.finfo(torch.float64).eps / 2  # unit roundoff
# Norms over three sets, two factors and two products, each entry of which rounds a handful of times.
WITHIN = 8 * (2 * R + 8) * U
POLICIES = ["before", "joint", "separate", "deployed_only"]
LENGTHENING = [SplitRule(gate="reverse"), SplitRule(overshoot=3.0), SplitRule(preserve_magnitude=True)]
RULES = [SplitRule(), SplitRule(gate="no_gate"), *LENGTHENING]


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


BASIS = {name: torch.linalg.qr(randn(R, K, seed=seed)).Q.T.contiguous() for seed, name in enumerate("ab", start=10)}
# Half of each gradient is hack-ward, so that either part alone exceeds the limit.
G = {name: g + BASIS[name].sum(dim=0) * g.norm() / 2 for name in "ab" for g in (randn(R, seed=ord(name)),)}
OTHERS = [randn(3, 2, seed=7), randn(5, seed=8)]


def fed(rule: SplitRule = RULES[0], *, others: list[Tensor] = OTHERS, scale: float = 1.0, **options: Any) -> Fed:
    g = {name: scale * x for name, x in G.items()}
    norm = global_norm(g.values(), others)
    settings = {"clip": "before", "max_norm": LIMIT, "route": True, **options}
    return split_and_clip(g, others, norm, GroupedSplit(BASIS, rule), **settings)


def length(*sets: Any) -> float:
    return math.sqrt(sum(float((x * x).sum()) for tensors in sets for x in tensors))


def expected(rule: SplitRule, policy: str, *, route: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor], float]:
    """(kept, removed, the factor of the others), by the definitions of the policies."""
    first = min(1.0, LIMIT / length(G.values(), OTHERS)) if policy == "before" else 1.0
    parts = {name: split(first * g, BASIS[name], rule=rule) for name, g in G.items()}
    kept, removed = {n: p.kept for n, p in parts.items()}, {n: p.removed for n, p in parts.items()}
    rest = [first * x for x in OTHERS]
    both = length(kept.values(), removed.values() if route or policy == "before" else [], rest)
    deployed = min(1.0, LIMIT / (both if policy in ("before", "joint") else length(kept.values(), rest)))
    quarantine = {"separate": min(1.0, LIMIT / length(removed.values())), "deployed_only": 1.0}.get(policy, deployed)
    if policy == "before" and rule in RULES[:2]:
        deployed = quarantine = 1.0  # these parts are no longer than the gradient
    return (
        {name: deployed * x for name, x in kept.items()},
        {name: quarantine * x for name, x in removed.items()},
        first * deployed,
    )


@pytest.mark.parametrize("route", [True, False], ids=["route", "erase"])
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_feeds_its_definition(policy: str, rule: SplitRule, route: bool) -> None:
    parts = fed(rule, clip=policy, route=route)
    kept, removed, factor = expected(rule, policy, route=route)
    assert list(parts.deployed) == list(G)
    for name in G:
        torch.testing.assert_close(parts.deployed[name], kept[name], rtol=0, atol=WITHIN)
    assert list(parts.quarantine) == (list(G) if route else [])
    for name, x in parts.quarantine.items():
        torch.testing.assert_close(x, removed[name], rtol=0, atol=WITHIN)
    assert len(parts.others) == len(OTHERS)
    assert factor < 1
    for x, other in zip(parts.others, OTHERS, strict=True):
        torch.testing.assert_close(x, factor * other, rtol=WITHIN, atol=0)


@pytest.mark.parametrize("rule", RULES[:2], ids=str)
def test_parts_that_cannot_outgrow_the_limit_are_scaled_once(rule: SplitRule) -> None:
    """Rounding alone would put their joint norm above the limit for about half of all gradients."""
    over = 0
    for seed in range(32):
        g = {"a": randn(R, seed=seed)}
        norm = global_norm(g.values(), [])
        parts = split_and_clip(g, [], norm, GroupedSplit(BASIS, rule), clip="before", max_norm=LIMIT, route=True)
        scaled = GroupedSplit(BASIS, rule)({"a": g["a"] * torch.clamp(LIMIT / norm, max=1.0)})
        assert torch.equal(parts.deployed["a"], scaled.kept["a"])
        assert torch.equal(parts.quarantine["a"], scaled.removed["a"])
        over += float(parts.norm()) > LIMIT
    assert over


@pytest.mark.parametrize("clip", POLICIES)
@pytest.mark.parametrize("max_norm", [None, 1e6])
def test_below_the_limit_the_parts_are_those_of_the_split(clip: str, max_norm: float | None) -> None:
    parts, plain = fed(LENGTHENING[0], clip=clip, max_norm=max_norm), GroupedSplit(BASIS, LENGTHENING[0])(G)
    for name in G:
        assert torch.equal(parts.deployed[name], plain.kept[name])
        assert torch.equal(parts.quarantine[name], plain.removed[name])
    assert all(torch.equal(x, y) for x, y in zip(parts.others, OTHERS, strict=True))


def test_the_norm_is_over_everything_that_is_fed() -> None:
    parts = fed(max_norm=None)
    wanted = length(parts.deployed.values(), parts.quarantine.values(), parts.others)
    assert float(parts.norm()) == pytest.approx(wanted, rel=WITHIN)
    assert float(Fed({}, {}, [], []).norm()) == 0.0


@pytest.mark.parametrize("policy", POLICIES)
def test_what_was_split_is_handed_on_for_statistics(policy: str) -> None:
    """After the first clip, under `before`, and before any other."""
    parts = fed(clip=policy)
    factor = min(1.0, LIMIT / length(G.values(), OTHERS)) if policy == "before" else 1.0
    (stack,) = parts.accumulated
    wanted = torch.stack(list(G.values())) * factor
    torch.testing.assert_close(stack.vectors, wanted, rtol=WITHIN, atol=0)
    coefficients = torch.stack([BASIS[name] @ x for name, x in zip(G, wanted, strict=True)])
    torch.testing.assert_close(stack.coefficients, coefficients, rtol=0, atol=WITHIN * length(wanted))


@pytest.mark.parametrize("max_norm", [None, LIMIT])
def test_without_a_split_there_is_one_factor_and_no_quarantine(max_norm: float | None) -> None:
    norm = global_norm(G.values(), OTHERS)
    parts = clip_unsplit(G, OTHERS, norm, max_norm)
    factor = 1.0 if max_norm is None else LIMIT / length(G.values(), OTHERS)
    assert (parts.quarantine, parts.accumulated) == ({}, [])
    assert list(parts.deployed) == list(G)
    assert len(parts.others) == len(OTHERS)
    for x, y in zip([*parts.deployed.values(), *parts.others], [*G.values(), *OTHERS], strict=True):
        torch.testing.assert_close(x, factor * y, rtol=WITHIN, atol=0)
        assert (x is y) == (max_norm is None)


def test_a_factor_keeps_every_gradients_dtype() -> None:
    mixed = [OTHERS[0].bfloat16(), OTHERS[1].float()]
    parts = fed(others=mixed)
    assert [x.dtype for x in parts.others] == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_that_is_handed_in_is_written_to(policy: str) -> None:
    before = [x.clone() for x in (*G.values(), *OTHERS)]
    fed(clip=policy)
    clip_unsplit(G, OTHERS, global_norm(G.values(), OTHERS), LIMIT)
    assert all(torch.equal(x, y) for x, y in zip(before, (*G.values(), *OTHERS), strict=True))
