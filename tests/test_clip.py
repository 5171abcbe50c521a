"""The package's clip: what each policy feeds, from the norms written out, and that nothing handed in is written to."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from projected_grpo.clip import Fed, clip_factor, clip_unsplit, split_and_clip
from projected_grpo.norms import global_norm
from projected_grpo.split import GroupedSplit, SplitRule, split
from projected_grpo.stacks import Layout, Stacks

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


LAYOUT = Layout(BASIS)


def fed(rule: SplitRule = RULES[0], *, others: list[Tensor] = OTHERS, **options: Any) -> Fed:
    norm = global_norm(G.values(), others)
    settings = {"clip": "before", "max_norm": LIMIT, "route": True, **options}
    return split_and_clip(LAYOUT.stack(G), others, norm, GroupedSplit(BASIS, rule), **settings)


def by_name(stacks: Stacks) -> dict[str, Tensor]:
    return LAYOUT.rows(stacks) if stacks else {}


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
    for name, x in by_name(parts.deployed).items():
        torch.testing.assert_close(x, kept[name], rtol=0, atol=WITHIN)
    assert list(by_name(parts.quarantine)) == (list(G) if route else [])
    for name, x in by_name(parts.quarantine).items():
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
        alone = GroupedSplit({"a": BASIS["a"]}, rule)
        parts = split_and_clip([g["a"][None]], [], norm, alone, clip="before", max_norm=LIMIT, route=True)
        scaled = alone({"a": g["a"] * torch.clamp(LIMIT / norm, max=1.0)})
        assert torch.equal(parts.deployed[0][0], scaled.kept["a"])
        assert torch.equal(parts.quarantine[0][0], scaled.removed["a"])
        over += float(parts.norm()) > LIMIT
    assert over


@pytest.mark.parametrize("clip", POLICIES)
@pytest.mark.parametrize("max_norm", [None, 1e6])
def test_below_the_limit_the_parts_are_those_of_the_split(clip: str, max_norm: float | None) -> None:
    parts, plain = fed(LENGTHENING[0], clip=clip, max_norm=max_norm), GroupedSplit(BASIS, LENGTHENING[0])(G)
    for name in G:
        assert torch.equal(by_name(parts.deployed)[name], plain.kept[name])
        assert torch.equal(by_name(parts.quarantine)[name], plain.removed[name])
    assert all(torch.equal(x, y) for x, y in zip(parts.others, OTHERS, strict=True))


def test_the_norm_is_over_everything_that_is_fed() -> None:
    parts = fed(max_norm=None)
    wanted = length(parts.deployed, parts.quarantine, parts.others)
    assert float(parts.norm()) == pytest.approx(wanted, rel=WITHIN)
    assert float(Fed([], [], []).norm()) == 0.0


def test_modules_without_rows_keep_everything_and_are_scaled_with_the_rest() -> None:
    """Their stacks come after those of the split."""
    alone, norm = GroupedSplit({"a": BASIS["a"]}), global_norm(G.values())
    stacks = Layout(G, leading=["a"]).stack(G)
    assert [stack.shape for stack in stacks] == [(1, R), (1, R)]
    parts = split_and_clip(stacks, [], norm, alone, clip="before", max_norm=LIMIT, route=True)
    torch.testing.assert_close(parts.deployed[1][0], G["b"] * (LIMIT / norm), rtol=WITHIN, atol=0)
    assert not parts.quarantine[1].any()
    assert parts.quarantine[0].any()


@pytest.mark.parametrize("max_norm", [None, LIMIT])
def test_without_a_split_there_is_one_factor_and_no_quarantine(max_norm: float | None) -> None:
    factor = None if max_norm is None else clip_factor(global_norm(G.values(), OTHERS), max_norm)
    stacks = LAYOUT.stack(G)
    parts = clip_unsplit(stacks, OTHERS, factor)
    wanted = 1.0 if max_norm is None else LIMIT / length(G.values(), OTHERS)
    assert parts.quarantine == []
    for x, y in zip([*parts.deployed, *parts.others], [*stacks, *OTHERS], strict=True):
        torch.testing.assert_close(x, wanted * y, rtol=WITHIN, atol=0)
    assert parts.deployed[0].data_ptr() != stacks[0].data_ptr()  # the optimizer may write into what it is fed


def test_a_factor_keeps_every_gradients_dtype() -> None:
    mixed = [OTHERS[0].bfloat16(), OTHERS[1].float()]
    parts = fed(others=mixed)
    assert [x.dtype for x in parts.others] == [torch.bfloat16, torch.float32]


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_that_is_handed_in_is_written_to(policy: str) -> None:
    stacks = LAYOUT.stack(G)
    before, norm = [x.clone() for x in (*stacks, *OTHERS)], global_norm(G.values(), OTHERS)
    split_and_clip(stacks, OTHERS, norm, GroupedSplit(BASIS), clip=policy, max_norm=LIMIT, route=True)
    clip_unsplit(stacks, OTHERS, clip_factor(norm, LIMIT))
    assert all(torch.equal(x, y) for x, y in zip(before, (*stacks, *OTHERS), strict=True))
