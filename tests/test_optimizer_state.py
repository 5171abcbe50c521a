"""A routed optimizer resumes bit for bit, in transformers' Trainer too, and refuses states that are not its own."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from routed_toys import BASES, INTERVENTIONS, SPACES, make_basis, make_pairs, routed, same_bits, take, values

from projected_grpo.errors import (
    StateMismatchError,
)
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
    with torch.no_grad():
        for name, vectors in saved["vectors"].items():
            for vector, value in zip(resumed[name], vectors, strict=True):
                vector.copy_(value)
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
    pairs, seen = make_pairs(), []
    optimizer = routed(pairs)
    optimizer.register_state_dict_pre_hook(lambda _: seen.append("save"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": 1})
    optimizer.register_load_state_dict_pre_hook(lambda _, state: {k: v for k, v in state.items() if k != "note"})
    optimizer.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    assert optimizer.state_dict()["note"] == 1
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["save", "save", "loaded"]


def _without_routing(state: dict[str, Any]) -> None:
    del state["routing"]


def _other_version(state: dict[str, Any]) -> None:
    state["routing"]["version"] = 9


def _renamed(state: dict[str, Any]) -> None:
    state["routing"]["names"][0] = "elsewhere"


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
        (_other_version, "version 9, not 1"),
        (_renamed, "is only on one side"),
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
    "options", [{"space": "update"}, {"intervention": "erase"}, {"max_norm": 2.0}, {"rule": SplitRule(overshoot=1.1)}]
)
def test_states_of_other_settings_are_refused(options: dict[str, Any]) -> None:
    pairs = make_pairs()
    state = routed(pairs, max_norm=1.0).state_dict()
    with pytest.raises(StateMismatchError, match=f"saved with {next(iter(options))}="):
        routed(pairs, **{"max_norm": 1.0, **options}).load_state_dict(state)


# In a training loop that isn't ours
