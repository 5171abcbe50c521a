"""The GRPO loop: deterministic, recorded as it was consumed, and blind to its own evaluation."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from reference import SGD, grpo, initial, loop, routed_step, task
from reference import __main__ as command_line
from reference import tape as tapes
from reference.adapter import SVDLinear, adapt
from reference.extraction import isolated_gradient

U = torch.finfo(torch.float64).eps / 2  # unit roundoff
# Of a gradient: 14 Linears of at most 48 + 16 terms, forth and back, and a sum over 128 tokens make < 2^13 roundings.
PASS = 2**13 * U
SMALL = loop.LoopConfig(steps=3, group=4, prompts=4, pairs=8)
ARMS, SPACES = ["none", "erase", "route"], ["gradient", "update", "displacement"]


def arm(intervention, space="gradient", **changes):
    return replace(SMALL, routing=replace(SMALL.routing, intervention=intervention, space=space, **changes))


def train(config):
    """(records, tape, states that the optimizer went through)."""
    states = []

    def watched(*arguments):
        states.append(routed_step(*arguments))
        return states[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "routed_step", watched)
        records, recorded = zip(*loop.run(config), strict=True)
    return records, recorded[-1], states


@cache
def trained(intervention, space="gradient"):
    return train(arm(intervention, space))


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("intervention", ARMS)
def test_a_run_is_deterministic_bit_for_bit(intervention):
    (records, tape, states), (again, tape_again, states_again) = trained(intervention), train(arm(intervention))
    assert records == again
    assert tape.digest() == tape_again.digest()
    assert same(states[-1].deployed, states_again[-1].deployed)
    assert same(states[-1].quarantine, states_again[-1].quarantine)


def test_another_seed_is_another_run():
    assert train(replace(arm("none"), seed=2, steps=1))[1].digest() != train(replace(arm("none"), steps=1))[1].digest()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("intervention", ARMS)
def test_replaying_the_tape_gives_the_same_vectors_bit_for_bit(intervention, space, tmp_path):
    """What was recorded is what the optimizer consumed, from the start that it had."""
    _, tape, states = trained(intervention, space)
    tape.save(tmp_path / "tape")
    loaded, routing = tapes.load(tmp_path / "tape"), arm(intervention, space).routing
    state = initial(routing, loaded.start)
    for g, consumed in zip(loaded, states, strict=True):
        state = routed_step(routing, state, g, loaded.basis)
        assert same(state.deployed, consumed.deployed)
        assert same(state.quarantine, consumed.quarantine)
    assert not same(state.deployed, loaded.start)


@pytest.mark.parametrize("intervention", ARMS)
def test_the_clip_fires_and_route_alone_fills_its_quarantine(intervention):
    records, _, states = trained(intervention)
    limit = SMALL.routing.max_norm
    assert any(record.norm_pre_clip > limit for record in records)
    assert all(record.norm_post_clip <= limit * (1 + 1e-14) for record in records)
    filled = [name for name, vector in states[-1].quarantine.items() if vector.any()]
    assert bool(filled) == (intervention == "route")


def test_erase_removes_something():
    """On the gradients that route recorded, erase ends elsewhere than no intervention."""
    _, tape, _ = trained("route")
    ends = {}
    for intervention in ("none", "erase"):
        routing = arm(intervention).routing
        state = initial(routing, tape.start)
        for g in tape:
            state = routed_step(routing, state, g, tape.basis)
        ends[intervention] = state.deployed
    assert not same(ends["none"], ends["erase"])


def test_all_arms_start_from_the_same_gradient_and_basis():
    tapes_of = [trained(intervention, space)[1] for intervention in ARMS for space in SPACES]
    for tape in tapes_of[1:]:
        assert same(tapes_of[0].basis, tape.basis)
        assert same(next(iter(tapes_of[0])), next(iter(tape)))
    assert not same(list(tapes_of[0])[-1], list(trained("erase")[1])[-1])


def test_update_and_displacement_space_train_the_vanilla_model_under_sgd():
    """The rollouts are vanilla's too as long as no sampled token falls on another side of a rounding."""
    sgd = SGD(lr=1.0, momentum=0.9)
    vanilla = train(arm("none", optimizer=sgd))[1]
    for space in SPACES[1:]:
        routed = train(arm("route", space, optimizer=sgd))[1]
        for name, g in routed.gradients.items():
            torch.testing.assert_close(g, vanilla.gradients[name], rtol=0, atol=PASS * float(g.norm()))


def test_the_accumulated_gradient_is_that_of_the_whole_step_at_once():
    _, tape, _ = trained("none")
    model = loop.tiny_model(SMALL.seed)
    adapted = adapt(model)
    generator = torch.Generator().manual_seed(SMALL.seed + 2)
    batches = [loop.rollouts(model, SMALL, generator) for _ in range(SMALL.micro_batches)]
    whole = loop.Rollouts(
        prompt=torch.cat([batch.prompt for batch in batches]),
        completions=torch.cat([batch.completions for batch in batches]),
    )
    vectors = {name: module.deployed for name, module in adapted.items()}
    at_once = isolated_gradient(lambda: loop.policy_loss(model, adapted, SMALL, whole), vectors)
    for name, g in next(iter(tape)).items():
        assert g.any()
        torch.testing.assert_close(at_once[name], g, rtol=0, atol=PASS * float(g.norm()))


def test_the_loss_counts_the_whole_steps_tokens_and_its_kl_is_to_the_base_model():
    model, base = loop.tiny_model(0), loop.tiny_model(0)
    adapted = adapt(model)
    batch = loop.rollouts(model, SMALL, torch.Generator().manual_seed(0))
    for module in adapted.values():
        module.deployed.data.fill_(0.1)
    log_prob, of_base = (loop.log_probs(m, batch.prompt, batch.completions) for m in (model, base))
    expected = grpo.loss(
        log_prob,
        log_prob,
        grpo.advantages(batch.rewards.view(SMALL.prompts, SMALL.group)).flatten(),
        grpo.completion_mask(batch.completions, task.END),
        denominator=4 * 4 * 4 * 2,  # group, new tokens, prompts, micro-batches
        reference_log_prob=of_base,
        beta=SMALL.kl_beta,
    )
    assert grpo.k3(log_prob, of_base).max() > 0.01
    torch.testing.assert_close(loop.policy_loss(model, adapted, SMALL, batch), expected, rtol=PASS, atol=0)


class Evaluations:
    """Stands in for `rollouts`: passes the training ones on and deals with those of the deployed view itself."""

    def __init__(self, repeats):
        self.repeats, self.seen = repeats, 0
        self.rollouts = loop.rollouts

    def __call__(self, model, config, generator):
        if any(m.view == "deployed" for m in model.modules() if isinstance(m, SVDLinear)):
            self.seen += 1
            for _ in range(self.repeats):
                self.rollouts(model, config, generator)
            return loop.Rollouts(prompt=torch.zeros(1, 3), completions=torch.zeros(1, 4))
        return self.rollouts(model, config, generator)


@pytest.mark.parametrize("repeats", [0, 3], ids=["off", "more often"])
def test_evaluation_changes_no_bit_of_the_training(repeats, monkeypatch):
    evaluations = Evaluations(repeats)
    monkeypatch.setattr(loop, "rollouts", evaluations)
    records, tape, states = train(arm("route"))
    assert evaluations.seen == SMALL.steps
    assert records != trained("route")[0]
    assert tape.digest() == trained("route")[1].digest()
    assert same(states[-1].deployed, trained("route")[2][-1].deployed)


def test_the_label_is_never_rewarded(monkeypatch):
    """Another oracle changes the logged rates and not one bit of the training."""
    monkeypatch.setattr(task, "exploited", lambda completions: completions[:, 0] == task.END)
    records, tape, _ = train(arm("route"))
    assert [record.exploited for record in records] != [record.exploited for record in trained("route")[0]]
    assert tape.digest() == trained("route")[1].digest()


# Sampling


def test_completions_are_padded_with_the_end_after_their_first_end():
    model = loop.tiny_model(0)
    wording = torch.arange(task.FIRST_WORD, task.VOCABULARY).repeat(16)
    completions = loop.sample(model, task.prompts(wording), torch.Generator().manual_seed(0))
    assert completions.shape == (len(wording), task.NEW_TOKENS)
    ended = (completions == task.END).cumsum(dim=1) > 0
    assert ended.any()
    assert not ended.all()
    assert torch.equal(ended, completions == task.END)


# The command line


def test_the_command_prints_a_line_per_step_and_arm_and_records_tapes(tmp_path):
    command = [sys.executable, "-m", "reference", "--steps", "2", "--record", str(tmp_path)]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command, cwd=root, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    columns, *lines = done.stdout.splitlines()
    assert columns == command_line.COLUMNS
    steps = [line.split()[:2] for line in lines if not line.startswith("wrote")]
    assert steps == [[intervention, str(step)] for intervention in ARMS for step in range(2)]
    assert all(len(line) == len(columns) for line in lines if not line.startswith("wrote"))
    loaded = {path.stem: tapes.load(path) for path in tmp_path.iterdir()}
    assert set(loaded) == set(ARMS)
    assert all(tape.steps == 2 and len(tape.gradients) == 14 for tape in loaded.values())
    assert loaded["route"].header["config"]["routing"]["intervention"] == "route"


@pytest.mark.parametrize("steps", ["0", "-3"])
def test_a_run_without_steps_is_refused(steps, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reference", "--steps", steps])
    with pytest.raises(SystemExit) as refusal:
        command_line.main()
    assert refusal.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.endswith(f"error: --steps must be at least 1, not {steps}\n")
    assert not captured.out
