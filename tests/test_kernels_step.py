"""Whole steps and their diagnostics by the compiled loops: as by torch, and seen on the way as afterwards."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_toys import compiled, counted
from routed_toys import INTERVENTIONS, SPACES, make_pairs, routed, same_bits, take, values
from torch import nn

from projected_grpo import Basis, RoutedOptimizer, VectorPair, kernels, progress
from projected_grpo.cli import main
from projected_grpo.errors import OutsideWriteError, SettingError
from projected_grpo.kernels import KERNELS, use_kernels
from projected_grpo.kernels.memory import Memory
from projected_grpo.split import SplitRule
from projected_grpo.vector_set import VectorSet
from reference import Tape


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KERNELS, raising=False)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    ran = counted(monkeypatch, kernels, "split", "look_along")
    counted(monkeypatch, progress, "move", into=ran)
    return ran


@compiled
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_training_and_diagnostics_are_the_same_by_either(space: str, intervention: str, calls: Counter[str]) -> None:
    found = []
    for choice in ("off", "on"):
        pairs = make_pairs()
        optimizer = routed(pairs, space=space, intervention=intervention, max_norm=1.0)
        with use_kernels(choice):
            take(optimizer, pairs, range(6))
            found.append((values(pairs), optimizer.diagnostics()))
            assert bool(calls) == (choice == "on")
            assert (optimizer.loops is None) == (choice == "off")
    assert calls["look_along"] >= len(optimizer._split.V)
    splits = calls["split"] if space == "gradient" else calls["move"]
    assert (splits > 0) == (intervention != "none")
    (theirs, said), (ours, say) = found
    for name, vectors in theirs.items():
        for a, b in zip(vectors, ours[name], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=6e-7)  # 20 ulps of entries of .3, after six steps
    assert say.fired == said.fired
    for name in ("cos_pre", "hackward_share_update", "hackward_share_parameters", "drift_ratio", "drift_opposition"):
        assert getattr(say, name) == pytest.approx(getattr(said, name), rel=1e-5, abs=1e-6)


RULES = {
    "one_sided": {}, "no_gate": {"rule": SplitRule(gate="no_gate")}, "reverse": {"rule": SplitRule(gate="reverse")},
    "predictable": {"rule": SplitRule(gate="predictable")}, "overshoot": {"rule": SplitRule(overshoot=1.5)},
}  # fmt: skip


@compiled
@pytest.mark.parametrize("space", ["update", "displacement"])
@pytest.mark.parametrize("rule", RULES)
def test_a_step_that_is_looked_at_as_it_is_taken_says_what_it_says_afterwards(
    space: str, rule: str, calls: Counter[str]
) -> None:
    """To the bit, so that whether somebody has looked at the step before changes nothing."""
    pairs, twin = make_pairs(), make_pairs()
    watched, seldom = (routed(each, space=space, max_norm=1.0, **RULES[rule]) for each in (pairs, twin))
    with use_kernels("on"):
        for step in range(4):
            take(watched, pairs, range(step, step + 1))
            on_the_way = watched.diagnostics()
            before = calls["look_along"]
            assert watched.diagnostics() == on_the_way
            groups = len(watched._split.V)
            assert calls["look_along"] - before == (groups if step == 0 else 0)  # nobody had looked before the first
            take(seldom, twin, range(step, step + 1))
            assert same_bits(values(pairs), values(twin))
        assert seldom.diagnostics() == on_the_way
        assert calls["look_along"] == 3 * groups
        assert calls["split"] == 0
        with use_kernels("off"):
            by_torch, looked = watched.diagnostics(), dict(calls)
    assert calls == looked
    assert by_torch.hackward_share_update == pytest.approx(on_the_way.hackward_share_update, rel=1e-5, abs=1e-6)


@compiled
def test_looks_are_added_up_in_the_order_of_the_groups(calls: Counter[str]) -> None:
    """Also where one of them had to be looked at afterwards."""
    draw = torch.Generator().manual_seed(3)
    r = {f"{i}": 5 + i for i in range(5)}
    basis = Basis({name: torch.linalg.qr(torch.randn(n, 3, generator=draw))[0].T for name, n in r.items()})
    gradients = [{name: torch.randn(n, generator=draw) for name, n in r.items()} for _ in range(8)]
    said = []
    for watched in (True, False):
        pairs = {name: VectorPair(*(nn.Parameter(torch.zeros(n)) for _ in range(2))) for name, n in r.items()}
        pairs["0"].deployed.data = torch.zeros(5, 2)[:, 0]  # which no loop reads by its address
        optimizer = RoutedOptimizer(torch.optim.SGD([v for pair in pairs.values() for v in pair], lr=1.0), pairs, basis)
        with use_kernels("on"):
            for each in gradients:
                for name, pair in pairs.items():
                    pair.deployed.grad = each[name].clone()
                calls.clear()
                optimizer.step()
                assert calls == {"split": 1, "move": 4}
                if watched:
                    said.append(optimizer.diagnostics())
            assert optimizer.diagnostics() == said[-1]


@compiled
def test_who_stops_looking_pays_nothing(calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    move = progress.move

    def moved(*args: Any, look_at: Any, **kwargs: Any) -> Any:
        seen.append(look_at is not None)
        return move(*args, look_at=look_at, **kwargs)

    monkeypatch.setattr(progress, "move", moved)
    pairs = make_pairs()
    optimizer = routed(pairs)
    with use_kernels("on"):
        for step in range(5):
            take(optimizer, pairs, range(step, step + 1))
            if step == 1:
                optimizer.diagnostics()
        optimizer.diagnostics()
        optimizer.load_state_dict(optimizer.state_dict())  # a run that goes on begins as one that nobody looks at
        take(optimizer, pairs, range(5, 6))
    groups = len(optimizer._split.V)
    assert seen == [step == 2 for step in range(6) for _ in range(groups)]


@compiled
@pytest.mark.parametrize("intervention", ["erase", "route"])
@pytest.mark.parametrize("space", ["update", "displacement"])
def test_a_magnitude_that_is_preserved_is_not_moved_by_a_loop(
    intervention: str, space: str, calls: Counter[str]
) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, space=space, intervention=intervention, rule=SplitRule(preserve_magnitude=True))
    with use_kernels("on"):
        take(optimizer, pairs, range(2))
    assert not calls["move"]
    assert calls["split"] == 2 * len(optimizer._split.V)


@compiled
def test_what_was_seen_on_the_way_is_looked_at_again_where_squares_vanish(calls: Counter[str]) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, base="SGD")
    with use_kernels("on"):
        take(optimizer, pairs, range(1))
        optimizer.diagnostics()
        for pair in pairs.values():
            pair.deployed.grad = torch.full_like(pair.deployed, 1e-30)
        optimizer.step()
        found = optimizer.diagnostics()
    with use_kernels("off"):
        wanted = optimizer.diagnostics()
    assert found.cos_pre == pytest.approx(wanted.cos_pre, rel=1e-5)
    assert found.cos_pre


@pytest.mark.parametrize("choice", ["off", pytest.param("on", marks=compiled)])
@pytest.mark.parametrize("space", SPACES)
def test_vectors_are_compared_in_detail_where_they_have_changed_alone(
    choice: str, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, space=space)
    looked = counted(monkeypatch, VectorSet, "check_untouched")
    with use_kernels(choice):
        take(optimizer, pairs, range(3))
        assert not looked
        pairs["a.q"].quarantine.data[1] += 1
        if space != "gradient":
            with pytest.raises(OutsideWriteError, match="quarantine"):
                take(optimizer, pairs, range(3, 4))
            assert looked["check_untouched"] == 2


@compiled
def test_a_step_looks_four_times_where_vectors_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sets when they are compared, and when the point is found in one and the parts are written to both."""
    pairs = make_pairs()
    optimizer = routed(pairs)
    with use_kernels("on"):
        take(optimizer, pairs, range(1))
        looked = counted(monkeypatch, Memory, "is_theirs", "is_read_as_it_was")
        take(optimizer, pairs, range(1, 2))
    groups = len(optimizer._split.V)
    assert looked == {"is_theirs": 4 * groups, "is_read_as_it_was": 2 * groups}


@pytest.mark.parametrize("space", SPACES)
def test_a_word_that_means_nothing_is_refused_before_the_step(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, space=space)
    take(optimizer, pairs, range(1))
    before = values(pairs)
    monkeypatch.setenv(KERNELS, "fast")
    with pytest.raises(SettingError, match="'fast'"):
        take(optimizer, pairs, range(1, 2))
    monkeypatch.delenv(KERNELS)
    assert all(torch.equal(a, b) for name in before for a, b in zip(before[name], values(pairs)[name], strict=True))
    take(optimizer, pairs, range(1, 2))


@compiled
@pytest.mark.long
def test_the_suite_is_green_by_the_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, small_tape: Tape, calls: Counter[str]
) -> None:
    small_tape.save(tmp_path / "tape.safetensors")
    monkeypatch.setenv(KERNELS, "on")
    tape = str(tmp_path / "tape.safetensors")
    assert main(["verify", "--only", "optimizer", "clip", "--profile", "quick", "--tape", tape]) == 0
    assert min(calls["split"], calls["look_along"], calls["move"]) > 100
