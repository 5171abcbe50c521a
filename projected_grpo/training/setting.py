"""From a configuration to a policy and its task."""

from collections.abc import Sequence
from typing import Any

from projected_grpo import testbed
from projected_grpo.grading import Grader
from projected_grpo.training.config import TaskConfig, TrainConfig
from projected_grpo.training.errors import TaskError
from projected_grpo.training.policy import Policy, load
from projected_grpo.training.streams import stream
from projected_grpo.training.task import Task
from projected_grpo.training.teacher import Lessons
from projected_grpo.training.testbed_task import TestbedTask

LESSONS = 256  # pairs that teach


def make_policy_and_task(config: TrainConfig) -> tuple[Policy, Task]:
    """Loads the model, and makes the task that it is asked.

    Raises ModelError, TaskError, and what reading problems raises.
    """
    policy, tokenizer = load(config.model)
    return policy, make_task(config.task, tokenizer, policy.end_ids, config.model.model)


def make_task(config: TaskConfig, tokenizer: Any, end_ids: Sequence[int], model: str) -> Task:
    """The task by its name, with a grader of its own."""
    grader = Grader(workers=config.workers, unsafe=config.unsafe_grading)
    strict = config.reward == "strict"
    if config.task == "code":
        from projected_grpo.training.code_task import CodeTask  # on demand: it reads the bundled problems

        return CodeTask(
            grader, tokenizer, end_ids, problems=config.problems, modes=config.modes, strict=strict,
            format_weight=config.format_weight,
        )  # fmt: skip
    if tokenizer.get_vocab() != testbed.tokenizer().get_vocab():
        raise TaskError(f"{model} does not speak the 45 tokens of the testbed; ask it to program by --task code.")
    return TestbedTask(grader, modes=config.modes, strict=strict, format_weight=config.format_weight)


def lessons(task: Task, *, seed: int) -> Lessons:
    """What contrastive pairs teach: to each of the task's prompts that they are about, a hack and a solution."""
    return Lessons(task.pairs(LESSONS, (), stream(seed, "lessons")))
