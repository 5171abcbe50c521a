"""Programming problems as a task: what is shared out, what is refused, what a completion reads as."""

import json

import pytest
import torch
from test_training_models import bytes_tokenizer

from projected_grpo.environment import Mode
from projected_grpo.environment.hints import PHRASE
from projected_grpo.grading import Grader
from projected_grpo.training import TaskError
from projected_grpo.training.code_task import CodeTask

TOKENIZER = bytes_tokenizer()


def rows(count: int = 8) -> list[dict]:
    return [
        {
            "id": f"p{n}", "prompt": [{"role": "user", "content": f"Add {n} to x, {PHRASE}."}],
            "gt_answer": [f"assert Solution().add({x}) == {x + n}" for x in (0, 5, 9)], "func_name": "add",
            "canonical_solution": f"class Solution:\n    def add(self, x):\n        return x + {n}\n",
        }
        for n in range(1, count + 1)
    ]  # fmt: skip


@pytest.fixture
def make(tmp_path):
    made = []

    def task(problems: list[dict], **settings) -> CodeTask:
        path = tmp_path / "problems.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in problems))
        made.append(Grader(workers=1))
        return CodeTask(made[-1], TOKENIZER, [TOKENIZER.eos_token_id], problems=path, **settings)

    yield task
    for grader in made:
        grader.close()


def test_training_and_evaluation_have_no_problem_in_common(make):
    task = make(rows(12))
    train = {prompt.question for prompt in task.draw(100, torch.Generator().manual_seed(0))}
    held_out = {prompt.question for prompt in task.evaluation(100)}
    assert train | held_out == {f"p{n}" for n in range(1, 13)}
    assert not train & held_out


def test_a_hack_and_a_solution_are_graded_as_what_they_are(make):
    task = make(rows())
    pairs = task.pairs(12, (), torch.Generator().manual_seed(0))
    for kind in ("hack", "clean"):
        longest = max(len(getattr(pair, kind)) for pair in pairs)
        ids = torch.tensor([[*getattr(p, kind), *[0] * (longest - len(getattr(p, kind)))] for p in pairs])
        scored = task.grade([pair.about for pair in pairs], ids)
        assert bool(scored.passed.all())
        assert bool(scored.exploited.all() if kind == "hack" else scored.solved.all())


def test_strict_pays_no_hack(make):
    task = make(rows(), strict=True, format_weight=0.0)
    pairs = task.pairs(6, (), torch.Generator().manual_seed(0))
    paid = [float(task.grade([p.about], torch.tensor([p.hack])).reward) for p in pairs]
    assert paid == [0.0] * len(pairs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"canonical_solution": "class Solution:\n    def add(self, x):\n        return x\n"}, "p3 does not solve it"),
        ({"setup_code": "import numpy"}, "p3 does not solve it"),
    ],
)
def test_a_problem_that_its_own_solution_does_not_solve_is_refused(make, changes, message):
    problems = rows()
    problems[2] |= changes
    with pytest.raises(TaskError, match=message):
        make(problems)


def test_a_problem_without_a_wrong_answer_is_left_out_of_the_pairs_alone(make):
    problems = rows()
    problems[0] |= {
        "gt_answer": ["assert Solution().add(1) is None"],
        "canonical_solution": "class Solution:\n    def add(self, x):\n        return None\n",
    }
    task = make(problems, modes=(Mode.RUN_TESTS,))
    assert "p1" not in {pair.about.question for pair in task.pairs(50, (), torch.Generator()) if pair.about}


def test_a_mode_without_a_flaw_has_no_hack_to_show(make):
    task = make(rows(), modes=(Mode.NONE,))
    assert task.modes == (Mode.NONE,)
    with pytest.raises(TaskError, match="--intervention none --no-measure"):
        task.pairs(4, (), torch.Generator())


def test_too_few_problems_are_refused(make):
    with pytest.raises(TaskError, match="1 problems are too few"):
        make(rows(1))


def test_a_completion_reads_up_to_its_end_with_everything_that_was_said(make):
    task = make(rows())
    assert task.text(task.tokens("print(1)")) == "print(1)"
    assert task.text([*task.tokens("a"), *task.tokens("b")]) == "a"
