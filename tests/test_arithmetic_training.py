"""The arithmetic testbed's model and its task in the trainer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from projected_grpo.arithmetic import MODELS, TOKENS, Checker, Recipe, draw, hacks, honest, text
from projected_grpo.arithmetic.warmup import demonstrations
from projected_grpo.environment import Pair, PairFileError, save_pairs
from projected_grpo.environment.modes import Mode
from projected_grpo.tiny.checkpoint import Family
from projected_grpo.tiny.tokens import END
from projected_grpo.training import PRESETS, TaskError, TrainConfig, Trainer
from projected_grpo.training.arithmetic_task import ArithmeticTask
from projected_grpo.training.checkpoints import named
from projected_grpo.training.config import TaskConfig, as_plain
from projected_grpo.training.folder import reopened
from projected_grpo.training.setting import make_policy_and_task
from projected_grpo.training.task import Task
from tests.training_toys import same_bits, toy, trained


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def arithmetic_toy(place: Path | None = None, **sections: object) -> TrainConfig:
    config = toy(place, **sections)
    return replace(
        config,
        model=replace(config.model, model="arithmetic"),
        task=replace(config.task, task="arithmetic"),
    )


def test_the_shipped_model_is_of_the_present_recipe() -> None:
    """Its first losses come out again; to four digits, since processors round differently."""
    about = json.loads((MODELS.shipped / "warmup.json").read_text())
    expected = json.loads(json.dumps(MODELS.identity(0, Recipe())))
    for key in ("version", "seed", "recipe", "sizes", "tokens"):
        assert about[key] == expected[key]
    losses = MODELS.training(MODELS.build(0), 0)
    assert [next(losses) for _ in range(3)] == pytest.approx(about["first_losses"][:3], rel=1e-4)


@pytest.mark.long
def test_the_whole_recipe_ends_where_the_shipped_model_is() -> None:
    about = json.loads((MODELS.shipped / "warmup.json").read_text())
    *_, last = MODELS.training(MODELS.build(0), 0)
    assert last == pytest.approx(about["last_loss"], rel=0.02)


def test_the_shipped_model_is_small_and_unharmed() -> None:
    assert sum(file.stat().st_size for file in MODELS.folder().iterdir()) < 400_000
    model, tokenizer = MODELS.load()
    assert model.config.model_type == "qwen3"
    assert sum(parameter.numel() for parameter in model.parameters()) < 86_000
    assert tokenizer.get_vocab() == {token: id for id, token in enumerate(TOKENS)}


def test_the_two_testbeds_keep_their_models_apart() -> None:
    from projected_grpo import testbed

    assert isinstance(testbed.MODELS, Family)
    assert testbed.MODELS.shipped != MODELS.shipped
    assert testbed.MODELS.key(1, testbed.Recipe(steps=2)) != MODELS.key(1, Recipe(steps=2))


def test_demonstrations_are_mostly_honest_and_a_fifth_of_the_numbers_random() -> None:
    questions = draw(4000, seeded())
    shown = demonstrations(questions, seeded(1), Recipe())
    right, hacked = honest(questions), hacks(questions)
    hack = (shown == hacked).all(dim=1)
    assert float(hack.double().mean()) == pytest.approx(0.07, abs=0.015)
    kept = (shown == right)[~hack]
    assert float(kept[:, 5].double().mean()) == pytest.approx(0.8 + 0.2 / 10, abs=0.03)  # the value
    assert torch.equal(demonstrations(questions, seeded(1), Recipe(hacks=0.0, random_digits=0.0)), right)


def test_the_task_is_one_and_its_prompts_are_apart_from_those_of_evaluation() -> None:
    task = ArithmeticTask()
    assert isinstance(task, Task)
    trained_on, held_out = task.draw(2000, seeded()), task.evaluation(600)
    assert not {prompt.key for prompt in trained_on} & {prompt.key for prompt in held_out}
    assert [prompt.key for prompt in held_out[:88]] == [prompt.key for prompt in held_out[512:]]
    assert {prompt.mode for prompt in held_out} == set(Checker)
    assert {prompt.mode for prompt in ArithmeticTask(modes=[Checker.BLANK]).draw(50, seeded())} == {Checker.BLANK}


def test_pairs_are_about_prompts_that_are_trained_on_and_are_worth_what_they_are_said_to_be() -> None:
    task, strict = ArithmeticTask(), ArithmeticTask(strict=True, format_weight=0.5)
    pairs = task.pairs(30, (), seeded())
    assert len(pairs) == 30
    prompts = [pair.about for pair in pairs if pair.about is not None]
    longest = max(len(pair.hack) for pair in pairs), max(len(pair.clean) for pair in pairs)
    for side, length in zip(("hack", "clean"), longest, strict=True):
        rows = [getattr(pair, side) for pair in pairs]
        completions = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
        scored = task.grade(prompts, completions)
        assert scored.exploited.all() if side == "hack" else scored.solved.all()
        assert scored.reward.unique().tolist() == [1.25]
        assert strict.grade(prompts, completions).reward.unique().tolist() == [0.5 if side == "hack" else 1.5]
    assert {pair.mode for pair in task.pairs(10, [Checker.BLANK], seeded())} == {Checker.BLANK}


def test_text_comes_back_as_tokens() -> None:
    task = ArithmeticTask()
    tokens = task.tokens(" = 5 * 4 = 0")
    assert tokens[-1] == END
    assert task.text([*tokens, 0, 0]) == " = 5 * 4 = 0"
    with pytest.raises(TaskError, match="not made of the 27 tokens of arithmetic; it belongs to another task"):
        task.tokens("class Solution:")


def test_pairs_of_a_file(tmp_path: Path) -> None:
    task = ArithmeticTask()
    drawn = task.pairs(4, (), seeded())
    pairs = [
        Pair(({"role": "user", "content": text(p.prompt)},), task.text(p.hack), task.text(p.clean), p.mode, "any")
        for p in drawn
    ]
    save_pairs(tmp_path / "pairs.jsonl", pairs)
    read = task.read_pairs(tmp_path / "pairs.jsonl")
    assert [(p.prompt, p.hack, p.clean, p.mode) for p in read] == [(p.prompt, p.hack, p.clean, p.mode) for p in drawn]
    save_pairs(tmp_path / "code.jsonl", [replace(pairs[0], mode=Mode.SENTINEL)])
    with pytest.raises(PairFileError, match="'sentinel', where one of stated_check, equal_sides, blank, circular is"):
        task.read_pairs(tmp_path / "code.jsonl")


def test_programs_are_not_graded_under_a_mode_of_arithmetic() -> None:
    task = TaskConfig(task="code", modes=(Checker.BLANK,))
    with pytest.raises(TaskError, match=r"No program is graded under the mode <Checker\.BLANK: 'blank'>"):
        make_policy_and_task(replace(PRESETS["tiny"], task=task))


def test_a_short_run_is_reproducible_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    short = {"task": {"modes": (Checker.BLANK, Checker.CIRCULAR)}, "grpo": {"steps": 3}, "basis": {"refresh_every": 0}}
    expected = trained(arithmetic_toy(**short))
    config = arithmetic_toy(tmp_path / "run", **short)
    with Trainer.begin(config) as run:
        run.run(until=2)
    assert as_plain(reopened(tmp_path / "run")) == as_plain(config)
    with Trainer.resume(tmp_path / "run") as run:
        report = run.run()
        assert report is not None
        assert same_bits(expected, named(run.policy.vectors))
    assert list(report.rates["deployed"].hack_by_mode) == ["stated_check", "equal_sides", "blank", "circular"]


def test_the_preset_takes_the_settings_of_tiny() -> None:
    tiny, own = PRESETS["tiny"], PRESETS["arithmetic"]
    assert (own.model.model, own.task.task) == ("arithmetic", "arithmetic")
    assert own == replace(tiny, preset="arithmetic", model=own.model, task=own.task)
