"""Files of a run: pools, checkpoints, configurations; and what is refused."""

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_toys import TOY, toy

from projected_grpo import Basis, VectorPair, testbed
from projected_grpo.environment import Mode, Pair, PairFileError, save_pairs
from projected_grpo.errors import SettingError, StaleBasisError
from projected_grpo.training import (
    PRESETS,
    CheckpointError,
    PairsError,
    PoolError,
    Seen,
    TaskError,
    Trainer,
    checkpoints,
    folder,
)
from projected_grpo.training.hack_basis import chosen_pairs, mean_overlap, same_way
from projected_grpo.training.pool import Pool, Rollout, read, write
from projected_grpo.training.sampling import sample_pool
from projected_grpo.training.schedule import learning_rate
from projected_grpo.training.streams import stream

LINES = [
    Rollout("a", Mode.SENTINEL, (1, 2), (5, 2), "hack", passed=True, solved=False),
    Rollout("a", Mode.SENTINEL, (1, 2), (6, 2), "clean", passed=True, solved=True),
    Rollout("b", Mode.RUN_TESTS, (3,), (7,), "wrong", passed=False, solved=False),
]


def test_a_pool_comes_back_and_has_the_same_bytes_each_time(tmp_path):
    write(tmp_path / "a.gz", LINES)
    write(tmp_path / "b.gz", LINES)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    pool = read(tmp_path / "a.gz")
    assert len(pool) == 3
    assert set(pool.draw("a", 20, torch.Generator().manual_seed(0))) == {(5, 2), (6, 2)}
    with pytest.raises(PoolError, match="'b' has no tokens, or some that the model's 7"):
        pool.check_tokens(7)
    pool.check_tokens(8)
    with pytest.raises(PoolError, match="no hack"):
        Pool(LINES[1:]).pairs(2, (), torch.Generator())
    assert pool.draw("c", 2, torch.Generator()) == []
    assert [LINES[0].exploited, LINES[1].exploited, LINES[2].exploited] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is no rollout"), ("[]", "line 1 is no rollout"), ('{"key": "a"}', "mode"),
        (json.dumps({"key": "a", "mode": "none", "prompt": [1], "tokens": [1], "completion": "x", "passed": 1,
                     "solved": True}),
         "passed is not a bool"),
        (json.dumps({"key": "a", "mode": "new", "prompt": [1], "tokens": [1], "completion": "x", "passed": True,
                     "solved": True}),
         "new"),
        ("", "empty"),
    ],
)  # fmt: skip
def test_what_is_no_pool_is_refused_by_its_line(tmp_path, text, message):
    (tmp_path / "pool.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(PoolError, match=message):
        read(tmp_path / "pool.gz")


def test_a_pool_that_is_no_gzip_is_refused(tmp_path):
    (tmp_path / "pool.gz").write_text("plain")
    with pytest.raises(PoolError, match="cannot be read as a pool"):
        read(tmp_path / "pool.gz")


def test_checkpoints_keep_every_bit_of_a_nested_state(tmp_path):
    pair = VectorPair(nn.Parameter(torch.tensor([1.0, float("nan"), -0.0])), nn.Parameter(torch.zeros(3)))
    state = {
        "state": {0: {"step": torch.tensor(3.0), "m": pair.deployed.data}},
        "param_groups": [{"betas": (0.9, 0.99)}],
    }
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, step, {"m": pair}, state, {"warned": ["x"]})
    assert [path.name for path in checkpoints.found(tmp_path)] == ["step-000002", "step-000003"]
    saved = checkpoints.newest(tmp_path)
    assert saved is not None
    assert (saved.step, saved.extra) == (3, {"warned": ["x"]})
    assert saved.optimizer["param_groups"] == [{"betas": (0.9, 0.99)}]
    assert list(saved.optimizer["state"]) == [0]
    found = saved.vectors["m.deployed"]
    assert torch.equal(found.view(torch.int32), pair.deployed.data.view(torch.int32))


def test_what_a_checkpoint_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    pair = VectorPair(nn.Parameter(torch.zeros(3)), None)
    with pytest.raises(CheckpointError, match=r"optimizer\.hook"):
        checkpoints.save(tmp_path, 1, {"m": pair}, {"hook": object()}, {})
    assert list(tmp_path.iterdir()) == []


def test_vectors_of_another_model_are_not_restored():
    pair = VectorPair(nn.Parameter(torch.zeros(3)), None)
    with pytest.raises(CheckpointError, match="start again"):
        checkpoints.restore({"m": pair}, {"m.deployed": torch.zeros(4)})
    with pytest.raises(CheckpointError, match="start again"):
        checkpoints.restore({"m": pair}, {"n.deployed": torch.zeros(3)})


@pytest.mark.parametrize("name", PRESETS)
def test_a_configuration_comes_back_from_its_file(tmp_path, name):
    problems = tmp_path / "p" if PRESETS[name].task.task == "code" else None
    config = replace(PRESETS[name], task=replace(PRESETS[name].task, modes=(Mode.SENTINEL,), problems=problems))
    config = replace(config, run=replace(config.run, out=tmp_path / "run"))
    with folder.begun(config):
        pass
    assert folder.reopened(tmp_path / "run") == config


def test_a_run_of_another_version_is_not_gone_on_with(tmp_path):
    with folder.begun(toy(tmp_path / "run")):
        pass
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "magic": 1}))
    with pytest.raises(CheckpointError, match="magic is no setting"):
        folder.reopened(tmp_path / "run")


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("grpo", {"group": 1}, "group is 1"), ("grpo", {"steps": 0}, "steps is 0"),
        ("grpo", {"temperature": 0.0}, "temperature"), ("basis", {"held_out": 1.0}, "held_out"),
        ("teacher", {"mix": 1.5}, "mix is 1.5"), ("run", {"seed": -1}, "seed is -1"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(section, changes, message):
    with pytest.raises(SettingError, match=message):
        toy(**{section: changes})


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(["cosine", "constant"]))
def test_the_rate_rises_to_its_peak_and_never_beyond(steps, warmup, schedule):
    rates = [learning_rate(s, lr=1.0, steps=steps, warmup=warmup, schedule=schedule) for s in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_streams_of_different_purposes_steps_and_seeds_differ():
    draws = {
        float(torch.rand((), generator=stream(*key))) for key in [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]
    }
    assert len(draws) == 4


def test_a_sampled_pool_teaches_and_gives_pairs(tmp_path):
    with Trainer.begin(toy(tmp_path / "run")) as run:
        run.run()
        passed, solved = sample_pool(tmp_path / "run", tmp_path / "pool.gz", 800, "base", 0)
        assert 800 > passed > solved > 0
        pool = read(tmp_path / "pool.gz")
        pairs = pool.pairs(6, (), torch.Generator().manual_seed(0))
        assert len(pairs) == 6
        given = run.policy.completed([p.prompt for p in pairs], [p.hack for p in pairs])
        assert len(given) == 6
    config = toy(
        teacher={"pool": tmp_path / "pool.gz", "teach_pairs": False},
        basis={"pairs_from": tmp_path / "pool.gz"},
        grpo={"steps": 2},
    )
    seen = []
    with Trainer(config, None, watch=seen.append) as run:
        run.run()
    assert any(bool(each.rollouts.teacher.any()) for each in seen if isinstance(each, Seen))


ALL_OF_THEM: dict[str, Any] = {"held_out": 0.0, "pairs": 8}


@pytest.fixture(scope="module")
def shown() -> tuple[Basis, list[dict[str, Any]]]:
    """A basis, and the pairs that it is of as a file has them."""
    with Trainer(toy(basis=ALL_OF_THEM), None) as run:
        text = run.task.text
        pairs = [
            {"prompt": [{"role": "user", "content": text(p.prompt)}], "hack": text(p.hack), "clean": text(p.clean),
             "mode": p.mode, "problem": str(at)}
            for at, p in enumerate(run.pairs)
        ]  # fmt: skip
        return run.optimizer.basis, pairs


def alike(a: Basis, b: Basis) -> bool:
    """Up to the order of the pairs, which rounding can tell."""
    return all(float((V - b[name]).abs().max()) <= 1e-3 for name, V in a.items())


def test_pairs_of_a_file_make_the_basis_that_their_tokens_make(tmp_path, shown):
    basis, pairs = shown
    save_pairs(tmp_path / "pairs.jsonl", [Pair(**{**p, "prompt": tuple(p["prompt"])}) for p in pairs])
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    for name in ("pairs.jsonl", "pairs.json"):
        with Trainer(toy(basis={**ALL_OF_THEM, "pairs_from": tmp_path / name}), None) as run:
            assert alike(run.optimizer.basis, basis)


def test_pairs_that_are_none_are_refused(tmp_path, shown):
    _, [pair, *_] = shown
    foreign = json.dumps([{**pair, "hack": "import os"}])
    (tmp_path / "pairs.json").write_text(foreign)
    with pytest.raises(TaskError, match="belongs to another task"):
        Trainer(toy(basis={"pairs_from": tmp_path / "pairs.json"}), None)
    for text, message in (("{}", "a list of pairs is expected"), ("[", "is no JSON"), ("[{}]", "entry 1")):
        (tmp_path / "pairs.json").write_text(text)
        with pytest.raises(PairFileError, match=message):
            Trainer(toy(basis={"pairs_from": tmp_path / "pairs.json"}), None)


def test_a_saved_basis_is_used_as_it_is_and_refused_for_other_weights(tmp_path):
    with Trainer.begin(toy(tmp_path / "run")) as run:
        basis = run.optimizer.basis
    config = toy(basis={"basis_from": tmp_path / "run" / "basis.safetensors", "pairs": 2})
    with Trainer(config, None) as run:
        assert run.optimizer.basis == basis
    testbed.save(testbed.build(1), tmp_path / "other")
    with pytest.raises(StaleBasisError, match="extract the basis again"):
        Trainer(replace(config, model=replace(config.model, model=str(tmp_path / "other"))), None)


def test_held_out_pairs_are_about_prompts_that_v_has_not_seen():
    with Trainer(toy(basis={"pairs": 24}), None) as run:
        seen, apart = ({pair.prompt for pair in pairs} for pairs in (run.pairs, run.held_out))
        assert len(run.pairs) == 24
        assert len(run.held_out) == 8
        assert not seen & apart
        evaluated = {prompt.ids for prompt in run.task.evaluation(512)}
        drawn = {prompt.ids for prompt in run.task.draw(3000, torch.Generator().manual_seed(0))}
        assert (len(evaluated), len(drawn)) == (32, 96)
        assert not evaluated & (drawn | seen | apart)


def test_turned_axes_are_told_from_kept_ones():
    V = Basis({"m": torch.eye(2, 5), "n": torch.zeros(0, 4)})
    turned = Basis({"m": -torch.eye(2, 5), "n": torch.zeros(0, 4)})
    other = Basis({"m": torch.eye(5)[3:], "n": torch.eye(1, 4)})
    assert (same_way(V, V), same_way(turned, V), same_way(other, V)) == (1.0, -1.0, 0.0)
    assert (mean_overlap(V, V), mean_overlap(turned, V), mean_overlap(other, V)) == (1.0, 1.0, 0.0)


def test_a_pool_of_another_task_is_refused(tmp_path):
    write(tmp_path / "pool.gz", LINES)
    with pytest.raises(PoolError, match="none of this task's prompts"):
        Trainer(toy(teacher={"pool": tmp_path / "pool.gz", "teach_pairs": False}), None)


def test_too_few_pairs_are_refused(tmp_path):
    save_pairs(tmp_path / "pairs.jsonl", [])
    with Trainer(toy(), None) as run, pytest.raises(PairsError, match="no contrastive pair for V"):
        chosen_pairs(run.task, replace(TOY.basis, pairs_from=tmp_path / "pairs.jsonl"), seed=0)


def test_an_empty_pool_is_refused():
    with pytest.raises(PoolError, match="empty"):
        Pool([])
