"""From a configuration to a policy and its task."""

from collections.abc import Sequence
from typing import Any

from projected_grpo import arithmetic, testbed
from projected_grpo.grading import Grader
from projected_grpo.training.arithmetic_task import ArithmeticTask
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
    """The task by its name, with a grader of its own where programs are run.

    Raises TaskError for a model that does not speak the task's tokens.
    """
    paid: dict[str, Any] = {"strict": config.reward == "strict", "format_weight": config.format_weight}
    tiny = {"testbed": testbed.TOKENS, "arithmetic": arithmetic.TOKENS}.get(config.task)
    if tiny is not None and tokenizer.get_vocab() != {token: id for id, token in enumerate(tiny)}:
        raise TaskError(
            f"{model} does not speak the {len(tiny)} tokens of the task {config.task}; name its own model by --model "
            f"{config.task}, or ask another to program by --task code."
        )
    if config.task == "arithmetic":
        return ArithmeticTask(modes=config.modes, **paid)
    grader = Grader(workers=config.workers, unsafe=config.unsafe_grading)
    if config.task == "testbed":
        return TestbedTask(grader, modes=config.modes, **paid)
    from projected_grpo.training.code_task import CodeTask  # on demand: it reads the bundled problems

    return CodeTask(grader, tokenizer, end_ids, problems=config.problems, modes=config.modes, **paid)


def lessons(task: Task, *, seed: int) -> Lessons:
    """What contrastive pairs teach: to each of the task's prompts that they are about, a hack and a solution."""
    return Lessons(task.pairs(LESSONS, (), stream(seed, "lessons")))
