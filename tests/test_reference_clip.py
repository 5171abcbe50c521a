"""Clipping: what each policy covers, and which of them keep erase and route alike."""

from dataclasses import replace

import pytest
import torch

from reference import SGD, Routing, SplitRule, clip_factor, global_norm, gradient_parts, split

R, K, LIMIT = 16, 4, 0.5
U = torch.finfo(torch.float64).eps / 2  # unit roundoff
WITHIN = 1 + 4 * (2 * 2 * R) * U  # a norm over both sets of both modules, and a product, round
POLICIES = ["before", "joint", "separate", "deployed_only"]
LENGTHENING = [SplitRule(gate="reverse"), SplitRule(overshoot=3.0), SplitRule(preserve_magnitude=True)]


def randn(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


G = {name: randn(R, seed=seed) for seed, name in enumerate("ab")}
BASIS = {name: torch.linalg.qr(randn(R, K, seed=seed)).Q.T for seed, name in enumerate("ab", start=10)}
# Half of each gradient is hack-ward, so that either part alone exceeds the limit.
G = {name: g + BASIS[name].sum(dim=0) * g.norm() / 2 for name, g in G.items()}
ROUTE = Routing(optimizer=SGD(lr=1.0), max_norm=LIMIT)


def norms(parts):
    """Norms of what the deployed and the quarantine vectors are fed."""
    return global_norm([g for g, _ in parts.values()]), global_norm([h for _, h in parts.values()])


def same(a, b):
    return all(torch.equal(a[name][0], b[name][0]) for name in a)


def test_global_norm_reads_everything_as_one_vector():
    a, b = randn(5, seed=0), randn(7, seed=1)
    assert abs(global_norm([a], [b]) - torch.cat([a, b]).norm()) <= 12 * U * torch.cat([a, b]).norm()
    assert global_norm([], []) == 0


def test_clip_factor_acts_only_above_the_limit():
    norm = torch.tensor(2.0, dtype=torch.float64)
    assert clip_factor(norm, None) == 1
    assert clip_factor(norm, 2.0) == 1
    assert clip_factor(norm, 0.5) == 0.25


@pytest.mark.parametrize("gate", ["one_sided", "no_gate"])
def test_the_parts_together_have_the_vanilla_norm(gate):
    parts = gradient_parts(replace(ROUTE, max_norm=None, rule=SplitRule(gate=gate)), G, BASIS)
    assert min(norms(parts)) > LIMIT
    assert abs(parts.norm() / global_norm(G.values()) - 1) <= WITHIN - 1


@pytest.mark.parametrize("rule", [SplitRule(), SplitRule(gate="no_gate"), *LENGTHENING], ids=str)
@pytest.mark.parametrize("policy", ["before", "joint"])
def test_before_and_joint_cover_both_sets(policy, rule):
    routing = replace(ROUTE, clip=policy, rule=rule)
    assert gradient_parts(replace(routing, max_norm=None), G, BASIS).norm() > LIMIT
    norm = gradient_parts(routing, G, BASIS).norm()
    assert norm <= LIMIT * WITHIN
    assert norm >= LIMIT / WITHIN  # it is not clipped further than it must


@pytest.mark.parametrize("rule", LENGTHENING, ids=str)
def test_parts_that_outgrow_the_clipped_gradient_are_clipped_again_by_one_factor(rule):
    factor = clip_factor(global_norm(G.values()), LIMIT)
    once = {name: split(factor * g, BASIS[name], rule) for name, g in G.items()}
    outgrown = global_norm([s.kept for s in once.values()], [s.removed for s in once.values()])
    assert outgrown > 1.1 * LIMIT
    for name, (kept, removed) in gradient_parts(replace(ROUTE, rule=rule), G, BASIS).items():
        torch.testing.assert_close(kept, once[name].kept * LIMIT / outgrown, rtol=4 * R * U, atol=0)
        torch.testing.assert_close(removed, once[name].removed * LIMIT / outgrown, rtol=4 * R * U, atol=0)


def test_separate_bounds_each_set_alone():
    parts = gradient_parts(replace(ROUTE, clip="separate"), G, BASIS)
    assert max(norms(parts)) <= LIMIT * WITHIN
    assert parts.norm() > 1.2 * LIMIT


def test_deployed_only_leaves_the_quarantine_unbounded():
    deployed, quarantine = norms(gradient_parts(replace(ROUTE, clip="deployed_only"), G, BASIS))
    assert deployed <= LIMIT * WITHIN
    assert quarantine == norms(gradient_parts(replace(ROUTE, max_norm=None), G, BASIS))[1]
    assert quarantine > LIMIT


@pytest.mark.parametrize("rule", [SplitRule(), *LENGTHENING], ids=str)
@pytest.mark.parametrize("policy", ["before", "separate", "deployed_only"])
def test_erase_is_fed_what_route_feeds_its_deployed_vectors(policy, rule):
    route, erase = (replace(ROUTE, clip=policy, rule=rule, intervention=arm) for arm in ("route", "erase"))
    assert not same(gradient_parts(route, G, BASIS), gradient_parts(replace(route, max_norm=None), G, BASIS))
    assert same(gradient_parts(route, G, BASIS), gradient_parts(erase, G, BASIS))


def test_joint_feeds_erase_something_else_as_soon_as_it_fires():
    route, erase = (replace(ROUTE, clip="joint", intervention=arm) for arm in ("route", "erase"))
    assert not same(gradient_parts(route, G, BASIS), gradient_parts(erase, G, BASIS))
    idle_route, idle_erase = (replace(routing, max_norm=1e6) for routing in (route, erase))
    assert same(gradient_parts(idle_route, G, BASIS), gradient_parts(idle_erase, G, BASIS))


@pytest.mark.parametrize("policy", POLICIES)
def test_without_intervention_every_policy_clips_the_gradient(policy):
    parts = gradient_parts(replace(ROUTE, clip=policy, intervention="none"), G, BASIS)
    assert abs(parts.norm() / LIMIT - 1) <= WITHIN - 1
    assert all(quarantine is None for _, quarantine in parts.values())
