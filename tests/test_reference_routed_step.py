"""The routed step: which optimizers, spaces and arms keep the sum, the erase match and the span."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from reference import (
    SGD,
    AdamW,
    Routing,
    SplitRule,
    global_norm,
    gradient_parts,
    initial,
    refreshed,
    routed_step,
    split,
)
from reference.routed_step import split_module

STEPS, R, K, LIMIT = 40, 12, 3, 2.0
U = torch.finfo(torch.float64).eps / 2  # unit roundoff
# At most 16 roundings a step and trajectory, three trajectories, and momentum .9 sums each up to 1 / (1 - .9) times.
DRIFT = STEPS * 16 * 3 * 10 * U
LINEAR = [
    SGD(lr=0.1),
    SGD(lr=0.1, momentum=0.9),
    SGD(lr=0.1, momentum=0.9, dampening=0.3),
    SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    SGD(lr=0.1, momentum=0.9, decoupled_decay=0.2),
]
ADAMW = AdamW(lr=0.05, weight_decay=0.1)
RULES = [
    SplitRule(),
    SplitRule(gate="no_gate"),
    SplitRule(gate="reverse"),
    SplitRule(overshoot=1.5, preserve_magnitude=True),
]
SPACES = ["gradient", "update", "displacement"]


def randn(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_basis(seed):
    return {name: torch.linalg.qr(randn(R, K, seed=seed + i)).Q.T for i, name in enumerate("ab")}


BASIS = random_basis(10)
ZERO = {name: torch.zeros(R, dtype=torch.float64) for name in "ab"}
START = {name: randn(R, seed=30 + i) for i, name in enumerate("ab")}
# Noise and a signal that turns round, on one axis from anti-hack to hack-ward and on two the other way.
TURNING = torch.linspace(0.8, -0.4, STEPS, dtype=torch.float64)
GRADIENTS = [
    {
        name: randn(R, seed=50 + 2 * t + i) + TURNING[t] * (BASIS[name][0] - BASIS[name][1] + BASIS[name][2])
        for i, name in enumerate("ab")
    }
    for t in range(STEPS)
]


def train(routing, start=START, bases=(BASIS,)):
    """The states before and after each step; the last basis stays."""
    states = [initial(routing, start)]
    for t, g in enumerate(GRADIENTS):
        states.append(routed_step(routing, states[-1], g, bases[min(t, len(bases) - 1)]))
    return states


def flat(vectors):
    return torch.cat([vectors[name] for name in sorted(vectors)])


def combined(state):
    return flat(state.deployed) + flat(state.quarantine)


def distance(a, b):
    return (a - b).norm() / b.norm()


def outside_span(vectors, basis=BASIS):
    """Share of the vectors that does not lie in the span of the basis."""
    outside = {name: v - basis[name].T @ (basis[name] @ v) for name, v in vectors.items()}
    return flat(outside).norm() / flat(vectors).norm()


def hackward(after, before, basis=BASIS):
    """How far each axis has moved hack-ward, (2 K,): descent goes along minus the gradient."""
    return torch.cat([-basis[name] @ (after[name] - before[name]) for name in sorted(basis)])


def fires(states):
    return any(state.norm_pre_clip > LIMIT for state in states)


# Keeping the sum


@pytest.mark.parametrize("rule", RULES[:3], ids=str)
@pytest.mark.parametrize("optimizer", LINEAR, ids=str)
def test_linear_optimizers_keep_the_sum(optimizer, rule):
    route = Routing(optimizer=optimizer, max_norm=LIMIT, rule=rule)
    routed, vanilla = train(route, ZERO), train(replace(route, intervention="none"), ZERO)
    assert fires(routed)
    assert flat(routed[-1].quarantine).norm() > 0.1 * flat(vanilla[-1].deployed).norm()
    largest = max(combined(state).norm() + flat(state.quarantine).norm() for state in routed)
    if rule.gate == "reverse":
        # Its parts are clipped once more, by a factor that vanilla's gradient does not see.
        assert distance(combined(routed[-1]), combined(vanilla[-1])) > 0.01
    else:
        for a, b in zip(routed, vanilla, strict=True):
            assert (combined(a) - combined(b)).norm() <= DRIFT * largest


@pytest.mark.parametrize("gate", ["one_sided", "reverse"])
def test_unclipped_linear_optimizers_keep_the_sum_for_every_gate(gate):
    route = Routing(optimizer=LINEAR[3], rule=SplitRule(gate=gate, overshoot=1.5))
    routed, vanilla = train(route, ZERO), train(replace(route, intervention="none"), ZERO)
    largest = flat(routed[-1].quarantine).norm() + flat(routed[-1].deployed).norm()
    assert (combined(routed[-1]) - combined(vanilla[-1])).norm() <= DRIFT * largest


def test_adamw_does_not_keep_the_sum():
    route = Routing(optimizer=ADAMW)
    assert distance(combined(train(route)[-1]), combined(train(replace(route, intervention="none"))[-1])) > 0.1


def test_adamws_first_step_moves_by_two_rates_or_by_none():
    """Where kept and removed agree in sign the combined point moves 2 lr, where they disagree 0, and vanilla's lr."""
    lr = 0.05
    route = Routing(optimizer=AdamW(lr=lr, eps=1e-30))  # an eps that no coordinate of the gradient notices
    g, state = GRADIENTS[0], initial(route, ZERO)
    parts = [split(g[name], BASIS[name]) for name in "ab"]
    kept, removed = (torch.cat(part) for part in list(zip(*parts, strict=True))[:2])
    agree = kept * removed > 0
    disagree = kept * removed < 0
    assert agree.any()
    assert disagree.any()
    moved = combined(routed_step(route, state, g, BASIS)).abs()
    vanilla = combined(routed_step(replace(route, intervention="none"), state, g, BASIS)).abs()
    within = 16 * lr * U
    assert (moved[agree] - 2 * lr).abs().max() <= within
    assert moved[disagree].max() <= within
    assert (vanilla - lr).abs().max() <= within


# Erase match


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("optimizer", [LINEAR[3], ADAMW], ids=["SGD", "AdamW"])
def test_ablated_route_is_erase_bit_for_bit(optimizer, rule, space):
    route = Routing(optimizer=optimizer, max_norm=LIMIT, rule=rule, space=space)
    routed, erased = train(route), train(replace(route, intervention="erase"))
    assert fires(routed)
    assert flat(routed[-1].quarantine).norm() > 0
    assert all(torch.equal(flat(a.deployed), flat(b.deployed)) for a, b in zip(routed, erased, strict=True))


@pytest.mark.parametrize("optimizer", [LINEAR[1], ADAMW], ids=["SGD", "AdamW"])
def test_a_joint_clip_breaks_the_erase_match_when_it_fires(optimizer):
    route = Routing(optimizer=optimizer, max_norm=LIMIT, clip="joint")
    erase = replace(route, intervention="erase")
    assert fires(train(route))
    assert distance(flat(train(erase)[-1].deployed), flat(train(route)[-1].deployed)) > 1e-4
    idle_route, idle_erase = (train(replace(routing, max_norm=1e6))[-1] for routing in (route, erase))
    assert torch.equal(flat(idle_route.deployed), flat(idle_erase.deployed))


# Span and leak


@pytest.mark.parametrize("optimizer", LINEAR, ids=str)
def test_a_linear_optimizer_keeps_the_quarantine_in_the_span(optimizer):
    quarantine = train(Routing(optimizer=optimizer, max_norm=LIMIT), ZERO)[-1].quarantine
    assert outside_span(quarantine) <= DRIFT


def test_adamw_rotates_the_quarantine_out_of_the_span():
    assert outside_span(train(Routing(optimizer=ADAMW), ZERO)[-1].quarantine) > 0.1


def test_an_update_can_be_hackward_although_its_gradient_was_not():
    """Under AdamW, in gradient space: the preconditioner rotates what the split had cleaned."""
    route = Routing(optimizer=AdamW(lr=0.05, weight_decay=0.0))
    states = train(route, ZERO)
    cleaned = [
        flat({n: BASIS[n] @ kept for n, (kept, _) in gradient_parts(route, g, BASIS).items()}) for g in GRADIENTS
    ]
    moves = [hackward(b.deployed, a.deployed) for a, b in pairwise(states)]
    assert torch.stack(cleaned).max() <= 16 * R * U * max(flat(g).norm() for g in GRADIENTS)
    assert torch.stack(moves).max() > 0.1 * route.optimizer.lr


# Update and displacement space


@pytest.mark.parametrize("space", ["update", "displacement"])
@pytest.mark.parametrize("optimizer", [LINEAR[3], ADAMW], ids=["SGD", "AdamW"])
def test_one_optimizer_at_the_combined_point_trains_as_vanilla(optimizer, space):
    route = Routing(optimizer=optimizer, max_norm=LIMIT, space=space)
    routed, vanilla = train(route), train(replace(route, intervention="none"))
    assert fires(routed)
    assert distance(flat(routed[-1].deployed), combined(vanilla[-1])) > 0.01
    for a, b in zip(routed, vanilla, strict=True):
        assert torch.equal(flat(a.point), combined(b))
        assert distance(combined(a), combined(b)) <= DRIFT


@pytest.mark.parametrize("optimizer", [LINEAR[3], ADAMW], ids=["SGD", "AdamW"])
def test_in_update_space_no_update_is_hackward(optimizer):
    route = Routing(optimizer=optimizer, space="update")
    states, vanilla = train(route), train(replace(route, intervention="none"))
    moves, free = (
        torch.stack([hackward(b.deployed, a.deployed) for a, b in pairwise(run)]) for run in (states, vanilla)
    )
    size = max(flat(state.point).norm() + flat(state.deployed).norm() for state in states)
    assert free.max() > 0.01
    assert moves.max() <= 4 * (R + K) * U * size
    assert outside_span(states[-1].quarantine) <= DRIFT


@pytest.mark.parametrize("optimizer", [LINEAR[3], ADAMW], ids=["SGD", "AdamW"])
def test_in_displacement_space_no_displacement_is_hackward_but_updates_can_be(optimizer):
    route = Routing(optimizer=optimizer, space="displacement")
    states, vanilla = train(route), train(replace(route, intervention="none"))
    size = max(flat(state.point).norm() + flat(state.deployed).norm() for state in states)
    assert max(hackward(state.deployed, START).max() for state in vanilla) > 0.01
    assert max(hackward(state.deployed, START).max() for state in states) <= 4 * (R + K) * U * size
    assert max(hackward(b.deployed, a.deployed).max() for a, b in pairwise(states)) > 0.01
    assert outside_span(states[-1].quarantine) <= DRIFT


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_routing_the_update_is_a_split_of_every_change_of_the_point(rule):
    for a, b in pairwise(train(Routing(optimizer=ADAMW, space="update", rule=rule))):
        for name in START:
            parts = split(a.point[name] - b.point[name], BASIS[name], rule)
            assert parts.removed.any()
            assert torch.equal(b.deployed[name], a.deployed[name] - parts.kept)
            assert torch.equal(b.quarantine[name], a.quarantine[name] - parts.removed)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_routing_the_displacement_is_vanilla_training_and_one_split_at_the_end(rule):
    route = Routing(optimizer=ADAMW, max_norm=LIMIT, space="displacement", rule=rule)
    routed, learned = train(route)[-1], train(replace(route, intervention="none"))[-1].deployed
    for name in START:
        parts = split(START[name] - learned[name], BASIS[name], rule)
        assert parts.removed.any()
        assert torch.equal(routed.deployed[name], START[name] - parts.kept)
        assert torch.equal(routed.quarantine[name], -parts.removed)


def test_a_displacement_follows_a_refreshed_basis_and_an_update_does_not():
    fresh = random_basis(90)
    bases = [BASIS] * (STEPS // 2) + [fresh]
    for space in ("update", "displacement"):
        route = Routing(optimizer=ADAMW, space=space)
        last = train(route, bases=bases)[-1]
        vanilla = train(replace(route, intervention="none"), bases=bases)[-1]
        assert distance(combined(last), combined(vanilla)) <= DRIFT
        if space == "update":
            assert outside_span(last.quarantine, fresh) > 0.1
        else:
            assert outside_span(last.quarantine, fresh) <= DRIFT


@pytest.mark.parametrize("space", ["update", "displacement"])
def test_erase_forgets_the_removed_part_but_its_optimizer_does_not(space):
    """The optimizer's point runs ahead of the deployed vector: windup."""
    erase = Routing(optimizer=ADAMW, space=space, intervention="erase")
    last, vanilla = train(erase)[-1], train(replace(erase, intervention="none"))[-1]
    assert torch.equal(flat(last.point), flat(vanilla.deployed))
    assert distance(flat(last.deployed), flat(last.point)) > 0.01


# Inertness


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("intervention", ["none", "erase"])
@pytest.mark.parametrize("optimizer", [LINEAR[3], ADAMW], ids=["SGD", "AdamW"])
def test_without_routing_the_quarantine_is_never_touched(optimizer, intervention, space):
    """Not its bits and not its optimizer state, wherever it stands and whatever the decay."""
    routing = Routing(optimizer=optimizer, intervention=intervention, space=space)
    state = replace(initial(routing, START), quarantine=START)
    after = routed_step(routing, state, GRADIENTS[0], BASIS)
    assert not torch.equal(flat(after.deployed), flat(START))
    assert torch.equal(flat(after.quarantine), flat(START))
    assert after.quarantine_states == state.quarantine_states


@pytest.mark.parametrize("intervention", ["none", "erase"])
@pytest.mark.parametrize("optimizer", [LINEAR[3], ADAMW], ids=["SGD", "AdamW"])
def test_without_routing_the_run_is_that_of_an_adapter_without_a_quarantine(optimizer, intervention):
    routing = Routing(optimizer=optimizer, intervention=intervention)
    p, state = START["a"], optimizer.start(START["a"])
    for g in GRADIENTS:
        fed = g["a"] if intervention == "none" else split(g["a"], BASIS["a"]).kept
        p, state = optimizer.step(p, fed, state)
    assert torch.equal(train(routing)[-1].deployed["a"], p)


# What a step promises besides


@pytest.mark.parametrize("space", SPACES)
def test_the_reported_norms_are_those_before_and_after_the_clip(space):
    states = train(Routing(optimizer=ADAMW, max_norm=LIMIT, space=space))[1:]
    assert fires(states)
    for state, g in zip(states, GRADIENTS, strict=True):
        assert state.norm_pre_clip == global_norm(g.values())
        assert abs(state.norm_post_clip - min(LIMIT, state.norm_pre_clip)) <= 16 * R * U * LIMIT


@pytest.mark.parametrize("intervention", ["none", "erase", "route"])
def test_in_gradient_space_the_optimizers_point_is_the_deployed_vector(intervention):
    states = train(Routing(optimizer=ADAMW, intervention=intervention))
    assert not torch.equal(flat(states[-1].deployed), flat(START))
    assert all(torch.equal(flat(state.point), flat(state.deployed)) for state in states)


def test_a_run_starts_at_the_given_vectors_with_nothing_routed_and_nothing_measured():
    state = initial(Routing(optimizer=ADAMW), START)
    for part in (state.start, state.deployed, state.point):
        assert torch.equal(flat(part), flat(START))
    assert not flat(state.quarantine).any()
    assert (state.norm_pre_clip, state.norm_post_clip) == (0.0, 0.0)


@pytest.mark.parametrize("space", SPACES)
def test_a_step_leaves_the_state_it_started_from_alone(space):
    route = Routing(optimizer=ADAMW, space=space)
    before = train(route)[STEPS // 2]
    kept = {part: flat(getattr(before, part)).clone() for part in ("start", "deployed", "quarantine", "point")}
    first, again = (routed_step(route, before, GRADIENTS[-1], BASIS) for _ in range(2))
    assert torch.equal(combined(first), combined(again))
    assert not torch.equal(combined(first), combined(before))
    assert all(torch.equal(flat(getattr(before, part)), value) for part, value in kept.items())


@pytest.mark.parametrize("space", ["update", "displacement"])
@pytest.mark.parametrize("clip", ["joint", "separate", "deployed_only"])
def test_a_clip_of_parts_is_refused_where_the_gradient_is_not_split(space, clip):
    with pytest.raises(
        ValueError, match=f"^{space} space has one unsplit gradient, so its clip is 'before', not '{clip}'"
    ):
        Routing(optimizer=ADAMW, space=space, clip=clip)


@pytest.mark.parametrize("space", SPACES)
def test_the_predictable_gate_goes_by_what_it_saw_before_and_a_refresh_forgets_it(space):
    route = Routing(optimizer=LINEAR[0], space=space, rule=SplitRule(gate="predictable"))
    states = train(route)
    assert states[0].means == {}
    assert not flat(states[1].quarantine).any()  # nothing is open at the first step
    assert flat(states[-1].quarantine).any()
    forgotten = refreshed(states[STEPS // 2])
    assert forgotten.means == {}
    after = routed_step(route, forgotten, GRADIENTS[-1], random_basis(20))
    moved = flat(after.quarantine) - flat(forgotten.quarantine)
    assert not (flat(after.quarantine) if space == "displacement" else moved).any()
    for name in "ab":  # one step's coefficients, a tenth of them
        c = 10 * after.means[name]
        x = GRADIENTS[-1][name] if space == "gradient" else states[STEPS // 2].point[name] - after.point[name]
        x = START[name] - after.point[name] if space == "displacement" else x
        torch.testing.assert_close(c, random_basis(20)[name] @ x)


@pytest.mark.parametrize("space", ["update", "displacement"])
def test_what_the_point_retains_of_what_erase_drops(space):
    everything, half, nothing = (
        train(Routing(optimizer=ADAMW, intervention="erase", space=space, retained=share)) for share in (1.0, 0.5, 0.0)
    )
    assert torch.equal(flat(nothing[-1].point), flat(nothing[-1].deployed))
    first = [flat(states[1].point) - flat(states[1].deployed) for states in (everything, half)]
    assert first[0].any()
    torch.testing.assert_close(first[1], first[0] / 2)
    apart = [(flat(s[-1].point) - flat(s[-1].deployed)).norm() for s in (everything, half)]
    assert apart[1] < apart[0] / 2


@pytest.mark.parametrize(("space", "intervention"), [("gradient", "erase"), ("update", "route"), ("gradient", "route")])
def test_a_share_that_nothing_retains_is_refused(space, intervention):
    with pytest.raises(ValueError, match=r"^only erase outside gradient space has a part that its point may retain$"):
        Routing(optimizer=SGD(lr=0.1), space=space, intervention=intervention, retained=0.5)


def test_an_axis_whose_mean_is_nothing_is_closed():
    parts = split_module(
        SplitRule(gate="predictable"), torch.tensor([2.0, 3.0]), torch.eye(2), torch.tensor([0.0, 1.0])
    )
    assert parts.removed.tolist() == [0.0, 3.0]
