"""The predictable gate: decided by the past alone, the same under erase and route, saved, and reset by a refresh."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from routed_toys import (
    SHAPES,
    SPACES,
    Pairs,
    gradients,
    load,
    make_basis,
    make_pairs,
    parameters,
    routed,
    same_bits,
    take,
    unchecked_types,
    values,
)
from torch import Tensor, nn

import reference
from projected_grpo.basis import Basis
from projected_grpo.errors import DTypeMismatchError, SettingError, ShapeMismatchError, StateMismatchError
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.posthoc import project_out
from projected_grpo.split import GroupedSplit, SplitRule, split
from projected_grpo.vectors import VectorPair

RULE = SplitRule(gate="predictable")
PREDICTABLE: dict[str, Any] = {"rule": RULE}
COVERED = {name: k for name, (k, _) in SHAPES.items() if k}


def memory(optimizer: RoutedOptimizer) -> dict[str, Tensor]:
    found: dict[str, Tensor] = optimizer.state_dict()["routing"]["progress"]["memory"]
    return found


# Against the specification


@given(
    space=st.sampled_from(SPACES), arm=st.sampled_from(["erase", "route"]), seed=st.integers(0, 10**6),
    steps=st.integers(1, 8), overshoot=st.sampled_from([0.5, 1.0, 1.5]), limit=st.sampled_from([None, 3.0]),
    clip=st.sampled_from(["before", "joint", "separate", "deployed_only"]), preserve=st.booleans(),
    refreshed_after=st.integers(1, 8),
)  # fmt: skip
def test_the_package_is_the_specification(
    space: str, arm: str, seed: int, steps: int, overshoot: float, limit: float | None, clip: str, preserve: bool,
    refreshed_after: int,
) -> None:  # fmt: skip
    draw = torch.Generator().manual_seed(seed)
    bases = [make_basis(i).to(dtype=torch.float64) for i in (seed, seed + 1)]
    start = {name: torch.randn(r, generator=draw, dtype=torch.float64) for name, (_, r) in SHAPES.items()}
    pairs = {name: VectorPair(nn.Parameter(p.clone()), nn.Parameter(torch.zeros_like(p))) for name, p in start.items()}
    same: dict[str, Any] = {
        "intervention": arm, "space": space, "max_norm": limit, "clip": clip if space == "gradient" else "before"
    }  # fmt: skip
    rule: dict[str, Any] = {"gate": "predictable", "overshoot": overshoot, "preserve_magnitude": preserve}
    base = torch.optim.SGD(parameters(pairs), lr=0.1, momentum=0.9)
    optimizer = RoutedOptimizer(base, pairs, bases[0], rule=SplitRule(**rule), **same)
    specified = reference.SGD(lr=0.1, momentum=0.9)
    routing = reference.Routing(optimizer=specified, rule=reference.SplitRule(**rule), **same)
    state = reference.initial(routing, start)
    for step in range(steps):
        if step == refreshed_after:
            optimizer.refresh(bases[1])
            state = reference.refreshed(state)
        g = {name: torch.randn(r, generator=draw, dtype=torch.float64) for name, (_, r) in SHAPES.items()}
        for name, gradient in g.items():
            pairs[name].deployed.grad = gradient
        optimizer.step()
        state = reference.routed_step(routing, state, g, bases[step >= refreshed_after])
        seen = memory(optimizer)
        assert seen.keys() == COVERED.keys()
        for name, pair in pairs.items():
            torch.testing.assert_close(pair.deployed.detach(), state.deployed[name], rtol=1e-11, atol=1e-11)
            torch.testing.assert_close(pair.quarantine.detach(), state.quarantine[name], rtol=1e-11, atol=1e-11)
            if name in seen:
                torch.testing.assert_close(seen[name], state.means[name], rtol=1e-11, atol=1e-11)


def test_an_axis_opens_a_step_after_it_was_hackward_and_closes_late() -> None:
    """By hand: c = 1, -3, 5, 5 gives means 0, .1, -.21, .311, so that steps 1 and 3 are open."""
    pair = VectorPair(nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2)))
    optimizer = RoutedOptimizer(
        torch.optim.SGD([*pair], lr=1.0), {"m": pair}, Basis({"m": torch.eye(1, 2)}), space="gradient", rule=RULE
    )
    quarantine = []
    for c in (1.0, -3.0, 5.0, 5.0):
        pair.deployed.grad = torch.tensor([c, 1.0])
        optimizer.step()
        quarantine.append(float(pair.quarantine.detach()[0]))
    assert quarantine == [0.0, 3.0, 3.0, -2.0]
    assert pair.deployed.tolist() == [-6.0, -4.0]
    assert float(memory(optimizer)["m"]) == pytest.approx(0.9 * 0.311 + 0.5, rel=1e-6)


# The pure function


@given(seed=st.integers(0, 10**6), mask=st.lists(st.booleans(), min_size=4, max_size=4))
def test_a_mask_splits_along_the_axes_that_are_open(seed: int, mask: list[bool]) -> None:
    draw = torch.Generator().manual_seed(seed)
    V = torch.linalg.qr(torch.randn(9, 4, generator=draw, dtype=torch.float64))[0].T.contiguous()
    g, is_open = torch.randn(9, generator=draw, dtype=torch.float64), torch.tensor(mask)
    kept, removed, c = split(g, V, rule=RULE, open=is_open)
    along = split(g, V[is_open], rule=SplitRule(gate="no_gate"))
    torch.testing.assert_close(removed, along.removed)
    torch.testing.assert_close(kept, along.kept)
    assert torch.equal(kept, g - removed)
    assert torch.equal(c, split(g, V).coefficients)
    specified = reference.split(g, V, reference.SplitRule(gate="predictable"), open=is_open)
    torch.testing.assert_close(removed, specified.removed)


@pytest.mark.parametrize(
    ("rule", "is_open", "error", "message"),
    [
        (RULE, None, SettingError, "looks at earlier steps; pass open="),
        (SplitRule(), torch.ones(1, dtype=torch.bool), SettingError, "opens by the gradient itself; leave open= out"),
        (RULE, torch.ones(2, dtype=torch.bool), ShapeMismatchError, r"open is \(2,\) and V \(1, 2\)"),
        (RULE, torch.ones(1), DTypeMismatchError, "open is torch.float32; it must be bool"),
    ],
)
def test_a_mask_that_means_nothing_is_refused(
    rule: SplitRule, is_open: Tensor | None, error: type[Exception], message: str
) -> None:
    with unchecked_types(), pytest.raises(error, match=message):
        split(torch.ones(2), torch.eye(1, 2), rule=rule, open=is_open)


@pytest.mark.parametrize(("gate", "is_open", "said"), [("predictable", None, "needs"), ("reverse", [True], "not ask")])
def test_the_specification_refuses_the_same(gate: Any, is_open: list[bool] | None, said: str) -> None:
    mask = None if is_open is None else torch.tensor(is_open)
    with pytest.raises(ValueError, match=said):
        reference.split(torch.ones(2), torch.eye(1, 2), reference.SplitRule(gate=gate), open=mask)


def test_what_has_no_past_refuses_the_gate_and_changes_nothing() -> None:
    pairs, basis = make_pairs(), make_basis()
    before = values(pairs)
    with pytest.raises(SettingError, match="there are none here; use another gate"):
        GroupedSplit(basis, RULE)(gradients(0))
    with pytest.raises(SettingError, match="there are none here"):
        project_out(pairs, basis, rule=RULE)
    assert same_bits(before, values(pairs))


# The memory


@pytest.mark.parametrize("space", SPACES)
def test_erase_and_route_remember_the_same_bits(space: str) -> None:
    remembered, deployed = [], []
    for arm in ("erase", "route"):
        pairs = make_pairs()
        optimizer = routed(pairs, intervention=arm, space=space, max_norm=3.0, **PREDICTABLE)
        take(optimizer, pairs, range(6))
        remembered.append({name: [mean] for name, mean in memory(optimizer).items()})
        deployed.append({name: [pair.deployed.detach()] for name, pair in pairs.items()})
    assert same_bits(*remembered)
    assert same_bits(*deployed)
    assert any(bool((mean > 0).any()) for [mean] in remembered[0].values())


def test_a_module_without_a_gradient_keeps_what_its_gate_remembers() -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, space="gradient", **PREDICTABLE)
    take(optimizer, pairs, range(1), without="b.q")
    assert "b.q" not in memory(optimizer)
    take(optimizer, pairs, range(1, 3))
    kept = memory(optimizer)["b.q"].clone()
    take(optimizer, pairs, range(3, 4), without="b.q")
    assert torch.equal(memory(optimizer)["b.q"], kept)
    assert [len(mean) for mean in memory(optimizer).values()] == [COVERED[name] for name in memory(optimizer)]


@pytest.mark.parametrize("space", SPACES)
def test_a_refused_step_is_not_remembered(space: str) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, space=space, **PREDICTABLE)
    take(optimizer, pairs, range(2))
    before = {name: [mean.clone()] for name, mean in memory(optimizer).items()}
    pairs["a.q"].deployed.grad = torch.full((12,), torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        optimizer.step()
    assert same_bits(before, {name: [mean] for name, mean in memory(optimizer).items()})


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("arm", ["erase", "route"])
def test_a_refresh_closes_every_axis(space: str, arm: str) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, space=space, intervention=arm, **PREDICTABLE)
    optimizer.refresh(make_basis(seed=2))  # before the first step there is nothing to forget
    take(optimizer, pairs, range(4))
    removed: list[bool] = []

    def look(*_: Any) -> None:
        removed.append(any(pair.quarantine.grad is not None and pair.quarantine.grad.any() for pair in pairs.values()))

    optimizer.base.register_step_pre_hook(look)
    optimizer.refresh(make_basis(seed=5))
    assert memory(optimizer) == {}
    take(optimizer, pairs, range(4, 5))
    if space == "displacement" and arm == "route":
        assert not any(pair.quarantine.any() for pair in pairs.values())
    assert removed == [False]
    take(optimizer, pairs, range(5, 9))
    assert any(removed) == (space == "gradient" and arm == "route")


# Checkpoints


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("arm", ["erase", "route"])
def test_resumed_at_any_step_a_run_goes_on_bit_for_bit(space: str, arm: str) -> None:
    steps, options = 5, {"space": space, "intervention": arm, "max_norm": 3.0, **PREDICTABLE}
    straight, saved = make_pairs(), []
    optimizer = routed(straight, **options)
    for step in range(steps):
        file = io.BytesIO()
        torch.save({"vectors": values(straight), "optimizer": optimizer.state_dict()}, file)
        saved.append(file)
        take(optimizer, straight, range(step, step + 1))
    for step, file in enumerate(saved):
        file.seek(0)
        state, resumed = torch.load(file, weights_only=True), make_pairs()
        again = routed(resumed, **options)
        load(resumed, state["vectors"])
        again.load_state_dict(state["optimizer"])
        take(again, resumed, range(step, steps))
        assert same_bits(values(straight), values(resumed)), step
        assert same_bits(*({name: [m] for name, m in memory(each).items()} for each in (optimizer, again)))


def as_version_1(optimizer: RoutedOptimizer) -> dict[str, Any]:
    """What the version before the gate's memory would have written."""
    state = copy.deepcopy(optimizer.state_dict())
    state["routing"]["version"] = 1
    del state["routing"]["settings"]["retained"]
    if state["routing"]["progress"] is not None:
        del state["routing"]["progress"]["memory"]
    return state


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("steps", [0, 3])
def test_states_of_the_first_version_still_load(space: str, steps: int) -> None:
    pairs, others = make_pairs(), make_pairs()
    optimizer = routed(pairs, space=space)
    take(optimizer, pairs, range(steps))
    again = routed(others, space=space)
    load(others, values(pairs))
    again.load_state_dict(as_version_1(optimizer))
    take(optimizer, pairs, range(steps, 6))
    take(again, others, range(steps, 6))
    assert same_bits(values(pairs), values(others))


def _of_another_size(saved: dict[str, Any]) -> None:
    saved["a.q"] = torch.zeros(7)


def _in_another_dtype(saved: dict[str, Any]) -> None:
    saved["a.q"] = saved["a.q"].double()


def _of_a_module_without_axes(saved: dict[str, Any]) -> None:
    saved["b.plain"] = torch.zeros(0)


def _of_a_stranger(saved: dict[str, Any]) -> None:
    saved["stray"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (_of_another_size, "a.q"), (_in_another_dtype, "a.q"), (_of_a_module_without_axes, "b.plain"),
        (_of_a_stranger, "stray"),
    ],
)  # fmt: skip
def test_a_memory_that_does_not_fit_is_refused(spoil: Callable[[Any], None], name: str) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, **PREDICTABLE)
    take(optimizer, pairs, range(2))
    state = copy.deepcopy(optimizer.state_dict())
    spoil(state["routing"]["progress"]["memory"])
    with pytest.raises(StateMismatchError, match=f"{name}: the saved memory of the gate does not fit"):
        optimizer.load_state_dict(state)
    take(optimizer, pairs, range(2, 3))


def test_a_gate_without_a_memory_is_given_none() -> None:
    pairs: Pairs = make_pairs()
    optimizer = routed(pairs)
    take(optimizer, pairs, range(2))
    state = copy.deepcopy(optimizer.state_dict())
    assert state["routing"]["progress"]["memory"] == {}
    state["routing"]["progress"]["memory"]["a.q"] = torch.zeros(3)
    with pytest.raises(StateMismatchError, match=r"a\.q: the saved memory"):
        optimizer.load_state_dict(state)


def test_the_grouped_form_takes_a_memory_and_hands_one_on() -> None:
    basis, g = make_basis(), gradients(0)
    earlier = {name: torch.where(torch.arange(len(V)) % 2 == 0, 1.0, -1.0) for name, V in basis.items() if len(V) > 1}
    result = GroupedSplit(basis, RULE)(g, earlier)
    for name, V in basis.items():
        means = earlier.get(name, torch.zeros(len(V)))
        one = split(g[name], V, rule=RULE, open=means > 0) if len(V) else None
        if one is None:
            assert name not in result.memory
            continue
        torch.testing.assert_close(result.removed[name], one.removed)
        torch.testing.assert_close(result.memory[name], 0.9 * means + 0.1 * one.coefficients)
    assert any(result.removed[name].any() for name in earlier)
