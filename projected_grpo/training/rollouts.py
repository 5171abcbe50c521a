"""What a step learns from: groups of completions, the student's own and, where there is a pool, a teacher's.

A group belongs to one prompt. Where the teacher has that prompt, the last completions are the teacher's. All of them
are graded here and now, by what grades the student's, whatever a pool has on record.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from projected_grpo.grpo import advantages
from projected_grpo.training.config import GRPOConfig, TeacherConfig
from projected_grpo.training.policy import Completions, Policy, joined
from projected_grpo.training.streams import stream
from projected_grpo.training.task import Prompt, Scored, Task
from projected_grpo.training.teacher import Teacher


@dataclass(frozen=True)
class Rollouts:
    """B = prompts x group completions, group by group."""

    prompts: tuple[Prompt, ...]
    completions: Completions
    scored: Scored
    teacher: Bool[Tensor, " B"]
    advantages: Float[Tensor, " B"]

    def __len__(self) -> int:
        return len(self.teacher)


def collect(
    policy: Policy,
    task: Task,
    config: GRPOConfig,
    teacher: TeacherConfig,
    pool: Teacher | None,
    *,
    seed: int,
    step: int,
) -> Rollouts:
    """The completions of one step, graded; all draws are those of (seed, step)."""
    prompts = task.draw(config.prompts, stream(seed, "prompts", step))
    if teacher.teacher_steps is not None and step >= teacher.teacher_steps:
        pool = None
    taught = _taught(prompts, config.group, teacher, pool, stream(seed, "teacher", step))
    asked = [p for p, given in zip(prompts, taught, strict=True) for _ in range(config.group - len(given))]
    parts = []
    if asked:
        parts.append(
            policy.sample(
                [prompt.ids for prompt in asked], stream(seed, "rollouts", step),
                max_new_tokens=config.max_new_tokens, temperature=config.temperature, batch=config.generation_batch,
            )
        )  # fmt: skip
    given = [(prompt.ids, tokens) for prompt, group in zip(prompts, taught, strict=True) for tokens in group]
    if given:
        ids, tokens = zip(*given, strict=True)
        parts.append(policy.completed(ids, [each[: config.max_new_tokens] for each in tokens]))
    order, from_teacher = _group_by_group([len(group) for group in taught], config.group)
    completions = joined(parts, policy.pad_id)[order.to(policy.device)]
    repeated = [prompt for prompt in prompts for _ in range(config.group)]
    scored = task.grade(repeated, completions.ids)
    grouped = advantages(scored.reward.view(config.prompts, config.group))
    return Rollouts(tuple(repeated), completions, scored, from_teacher, grouped.flatten())


def _taught(
    prompts: Sequence[Prompt],
    group: int,
    config: TeacherConfig,
    pool: Teacher | None,
    draw: torch.Generator,
) -> list[list[tuple[int, ...]]]:
    """For each prompt the teacher's completions as tokens; none where the pool does not have it."""
    if pool is None:
        return [[] for _ in prompts]
    count = round(config.mix * group)
    return [pool.draw(prompt.key, count, draw) for prompt in prompts]


def _group_by_group(taught: Sequence[int], group: int) -> tuple[Tensor, Bool[Tensor, " B"]]:
    """Where, in all student completions followed by all teacher ones, each place of each group is; and whose it is."""
    students, teachers = 0, sum(group - count for count in taught)
    order, whose = [], []
    for count in taught:
        order += [*range(students, students + group - count), *range(teachers, teachers + count)]
        whose += [False] * (group - count) + [True] * count
        students, teachers = students + group - count, teachers + count
    return torch.tensor(order), torch.tensor(whose)
