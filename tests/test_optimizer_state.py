"""A routed optimizer resumes bit for bit, and refuses states that are not its own."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from routed_toys import (
    BASES,
    INTERVENTIONS,
    SPACES,
    Pairs,
    load,
    make_basis,
    make_pairs,
    parameters,
    routed,
    same_bits,
    take,
    values,
)
from torch import nn

from projected_grpo.errors import StateMismatchError
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.split import SplitRule

# Resumption


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("intervention", INTERVENTIONS)
@pytest.mark.parametrize("space", SPACES)
def test_resumption_is_bitwise(base: str, intervention: str, space: str) -> None:
    options: dict[str, Any] = {"intervention": intervention, "space": space, "max_norm": 3.0}
    straight = make_pairs()
    optimizer = routed(straight, base, **options)
    take(optimizer, straight, range(3))
    optimizer.refresh(make_basis(seed=5))
    file = io.BytesIO()
    torch.save({"vectors": values(straight), "optimizer": optimizer.state_dict()}, file)
    take(optimizer, straight, range(3, 8))

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = make_pairs()
    again = routed(resumed, base, **options)
    load(resumed, saved["vectors"])
    again.load_state_dict(saved["optimizer"])
    assert again.basis == make_basis(seed=5)
    take(again, resumed, range(3, 8))
    assert same_bits(values(straight), values(resumed))
    assert again.diagnostics() == optimizer.diagnostics()


def test_a_state_dict_is_a_snapshot_and_works_before_the_first_step() -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    optimizer.load_state_dict(optimizer.state_dict())  # as accelerate.prepare does
    take(optimizer, pairs, range(1))
    saved = optimizer.state_dict()["routing"]["progress"]["point"]["a.q"]
    kept = saved.clone()
    take(optimizer, pairs, range(1, 3))
    assert torch.equal(saved, kept)


def test_state_dict_hooks_run() -> None:
    """With the optimizer as their first argument, and with or without a state that they return."""
    pairs, seen = make_pairs(), []
    optimizer = routed(pairs)

    def noted(where: RoutedOptimizer, what: str, result: Any = None) -> Any:
        assert where is optimizer
        seen.append(what)
        return result

    optimizer.register_state_dict_pre_hook(lambda o: noted(o, "save"))
    optimizer.register_state_dict_post_hook(lambda o, state: noted(o, "saved", {**state, "note": 1}))
    optimizer.register_load_state_dict_pre_hook(
        lambda o, state: noted(o, "load", {k: v for k, v in state.items() if k != "note"})
    )
    optimizer.register_load_state_dict_pre_hook(lambda o, state: noted(o, "load on"))
    optimizer.register_load_state_dict_post_hook(lambda o: noted(o, "loaded"))
    assert optimizer.state_dict()["note"] == 1
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["save", "saved", "save", "saved", "load", "load on", "loaded"]


def _without_routing(state: dict[str, Any]) -> None:
    del state["routing"]


def _other_version(state: dict[str, Any]) -> None:
    state["routing"]["version"] = 9


def _other_layout(state: dict[str, Any]) -> None:
    state["routing"]["layout"][0].pop()


def _no_layout(state: dict[str, Any]) -> None:
    state["routing"]["layout"] = 3


def _other_groups(state: dict[str, Any]) -> None:
    state["param_groups"] = 3


def _other_precision(state: dict[str, Any]) -> None:
    state["routing"]["basis"]["precision"] = "float"


def _listed_progress(state: dict[str, Any]) -> None:
    state["routing"]["progress"]["point"]["a.q"] = [0.0] * 12


def _without_one_point(state: dict[str, Any]) -> None:
    del state["routing"]["progress"]["point"]["a.v"]


def _no_settings(state: dict[str, Any]) -> None:
    state["routing"]["settings"] = None


def _other_group(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"].pop()


def _shorter_rows(state: dict[str, Any]) -> None:
    state["routing"]["basis"]["rows"]["a.q"] = torch.eye(2, 5)


def _shorter_point(state: dict[str, Any]) -> None:
    state["routing"]["progress"]["point"]["a.q"] = torch.zeros(5)


def _stray_start(state: dict[str, Any]) -> None:
    state["routing"]["progress"]["start"]["stray"] = torch.zeros(5)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_routing, "no routing part"),
        (_other_version, "version 9, not 2"),
        (_other_layout, "the state has nothing and the base optimizer the quarantine vector of b.plain"),
        (_no_layout, "no list of lists"),
        (_other_groups, "no list of parameter groups"),
        (_other_precision, "precision 'float'"),
        (_listed_progress, "a.q: the saved point is list"),
        (_without_one_point, "saved point has no 'a.v'"),
        (_no_settings, "settings is a NoneType and no dict"),
        (_other_group, "parameter groups of"),
        (_shorter_rows, "saved basis does not fit the vectors: a.q"),
        (_shorter_point, r"a.q: the saved point is \(5,\)"),
        (_stray_start, "stray: the saved start"),
    ],
)
def test_foreign_states_are_refused_before_anything_changes(spoil: Callable[[Any], None], message: str) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    take(optimizer, pairs, range(2))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    spoil(state)
    moments = optimizer.state[pairs["a.q"].deployed]["exp_avg"].clone()
    with pytest.raises(StateMismatchError, match=message):
        optimizer.load_state_dict(state)
    assert torch.equal(optimizer.state[pairs["a.q"].deployed]["exp_avg"], moments)
    assert optimizer.diagnostics().cos_pre is not None  # nor was the record dropped


@pytest.mark.parametrize(
    "path",
    [
        "state", "param_groups", "routing/settings", "routing/settings/rule", "routing/layout", "routing/basis",
        "routing/basis/rows", "routing/basis/precision", "routing/progress", "routing/progress/start",
        "routing/progress/deployed", "routing/progress/quarantine",
    ],
)  # fmt: skip
def test_states_with_something_missing_are_refused(path: str) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    take(optimizer, pairs, range(1))
    state = copy.deepcopy(optimizer.state_dict())
    part, (*parents, key) = state, path.split("/")
    for parent in parents:
        part = part[parent]
    del part[key]
    with pytest.raises(StateMismatchError, match=f"has no '{key}'; save the state again"):
        optimizer.load_state_dict(state)
    take(optimizer, pairs, range(1, 2))


@pytest.mark.parametrize("intervention", INTERVENTIONS)
@pytest.mark.parametrize(
    ("order", "message"),
    [
        (lambda p: p[::-1], "At place 0 of parameter group 0 the state has the deployed vector of a.q"),
        (lambda p: [p[1], p[0], *p[2:]], "the base optimizer the quarantine vector of a.q"),
        (lambda p: [*p[4:6], *p[2:4], *p[:2], *p[6:]], "the base optimizer the deployed vector of b.q"),
        (lambda p: [*p[:-2], p[-1], p[-2]], r"not routed \(3,\) and the base optimizer a parameter .* \(2,\)"),
    ],
)
def test_states_of_another_order_of_parameters_are_refused(
    order: Callable[[list[nn.Parameter]], list[nn.Parameter]], message: str, intervention: str
) -> None:
    """Torch keys momenta by place, so they would go to other vectors, of the same shape, without a word."""

    def build(arrange: Callable[[list[nn.Parameter]], list[nn.Parameter]]) -> tuple[Pairs, RoutedOptimizer]:
        pairs = make_pairs()
        held = [*parameters(pairs), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
        base = torch.optim.SGD(arrange(held), lr=0.1, momentum=0.9)
        return pairs, RoutedOptimizer(base, pairs, make_basis(), intervention=intervention)

    pairs, optimizer = build(list)
    take(optimizer, pairs, range(2))
    others, other = build(order)
    take(other, others, range(1))
    momentum = other.state[others["a.q"].deployed]["momentum_buffer"].clone()
    with pytest.raises(StateMismatchError, match=message):
        other.load_state_dict(optimizer.state_dict())
    assert torch.equal(other.state[others["a.q"].deployed]["momentum_buffer"], momentum)
    same, fits = build(list)
    fits.load_state_dict(optimizer.state_dict())
    assert torch.equal(
        fits.state[same["a.q"].deployed]["momentum_buffer"], optimizer.state[pairs["a.q"].deployed]["momentum_buffer"]
    )


@pytest.mark.parametrize(
    "options", [{"space": "update"}, {"intervention": "erase"}, {"max_norm": 2.0}, {"rule": SplitRule(overshoot=1.1)}]
)
def test_states_of_other_settings_are_refused(options: dict[str, Any]) -> None:
    pairs = make_pairs()
    state = routed(pairs, max_norm=1.0).state_dict()
    with pytest.raises(StateMismatchError, match=f"saved with {next(iter(options))}="):
        routed(pairs, **{"max_norm": 1.0, **options}).load_state_dict(state)
