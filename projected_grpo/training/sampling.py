"""Rollouts of a finished or a running run, graded and written as a pool."""

from pathlib import Path

import torch

from projected_grpo.training import checkpoints, folder
from projected_grpo.training.errors import CheckpointError
from projected_grpo.training.inputs import check_same, digests
from projected_grpo.training.policy import View
from projected_grpo.training.pool import Rollout, rollouts_of, write
from projected_grpo.training.setting import make_policy_and_task
from projected_grpo.training.streams import stream


def sample_pool(run: Path, out: Path, count: int, view: View, seed: int) -> tuple[int, int]:
    """Writes `count` rollouts of the run's newest checkpoint; how many of them passed, and how many are right.

    Raises CheckpointError if the folder holds no checkpoint, or if its settings or inputs are not what they were.
    """
    config = folder.reopened(run)
    saved = checkpoints.newest(run / folder.CHECKPOINTS)
    if saved is None:
        raise CheckpointError(f"{run} has no checkpoint to sample from; train it first.")
    if config.model.threads is not None:
        torch.set_num_threads(config.model.threads)
    policy, task = make_policy_and_task(config)
    try:
        check_same(saved.extra, config, digests(config, policy))
        checkpoints.restore(policy.vectors, saved.vectors)
        prompts = task.draw(count, stream(seed, "pool prompts"))
        completions = policy.sample(
            [prompt.ids for prompt in prompts], stream(seed, "pool"), max_new_tokens=config.grpo.max_new_tokens,
            temperature=config.grpo.temperature, batch=config.grpo.generation_batch, view=view,
        )  # fmt: skip
        scored = task.grade(prompts, completions.ids)
        rollouts: list[Rollout] = rollouts_of(task, prompts, completions.unpadded(), scored)
    finally:
        task.close()
    write(out, rollouts)
    return sum(each.passed for each in rollouts), sum(each.solved for each in rollouts)
