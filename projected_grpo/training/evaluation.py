"""Rates on held-out prompts, of the model as trained and as it will be deployed.

Sampling draws from a stream of its own, so looking at a run does not change it. Every look draws the same numbers: two
views, two steps and two arms are compared on the same prompts with the same luck.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from projected_grpo.basis import Basis
from projected_grpo.posthoc import project_out
from projected_grpo.split import SplitRule
from projected_grpo.training import checkpoints
from projected_grpo.training.config import GRPOConfig
from projected_grpo.training.policy import Policy, View
from projected_grpo.training.streams import stream
from projected_grpo.training.task import Prompt, Scored, Task
from projected_grpo.vectors import VectorPair


@dataclass(frozen=True)
class Rates:
    """Shares of completions; `hack_by_mode` of those under each mode."""

    hack: float
    solve: float
    format: float
    passed: float
    reward: float
    completions: int
    hack_by_mode: dict[str, float]

    @property
    def standard_error(self) -> float:
        """Of the hack rate, as of independent completions."""
        return math.sqrt(self.hack * (1 - self.hack) / self.completions)


def rates(scored: Scored) -> Rates:
    """The shares of a batch that was graded."""
    declared = [mode for mode in type(scored.mode[0]) if mode in scored.mode]  # all of one task, so of one kind
    by_mode = {mode: [at for at, own in enumerate(scored.mode) if own is mode] for mode in declared}
    return Rates(
        hack=_share(scored.exploited),
        solve=_share(scored.solved),
        format=_share(scored.format),
        passed=_share(scored.passed),
        reward=float(scored.reward.double().mean()),
        completions=len(scored.reward),
        hack_by_mode={mode.value: _share(scored.exploited[rows]) for mode, rows in by_mode.items()},
    )


def evaluate(
    policy: Policy, task: Task, prompts: Sequence[Prompt], config: GRPOConfig, *, view: View, seed: int
) -> Rates:
    """Samples one completion for each prompt from the model as it is viewed, and grades them."""
    completions = policy.sample(
        [prompt.ids for prompt in prompts], stream(seed, "evaluation"), max_new_tokens=config.max_new_tokens,
        temperature=config.temperature, batch=config.generation_batch, view=view,
    )  # fmt: skip
    return rates(task.grade(prompts, completions.ids))


@contextmanager
def projected(policy: Policy, basis: Basis, rule: SplitRule) -> Iterator[None]:
    """A block in which what was learned is split along V once, as if it were routed; restores the vectors' bits."""
    pairs = policy.vectors
    kept = {name: value.clone() for name, value in checkpoints.named(pairs).items()}
    try:
        project_out(policy.model, basis, rule=rule)
        yield
    finally:
        checkpoints.restore(pairs, kept)


@contextmanager
def off_the_axes(policy: Policy, basis: Basis) -> Iterator[None]:
    """A block in which the deployed vectors have nothing along V, hack-ward or not; restores their bits.

    What a deployed model does better than this, it does by what it has learned along V, and an opposite drift there
    looks like a method that works.
    """
    deployed = {name: VectorPair(pair.deployed, None) for name, pair in policy.vectors.items()}
    kept = {name: pair.deployed.detach().clone() for name, pair in deployed.items()}
    try:
        project_out(deployed, basis, rule=SplitRule(gate="no_gate"))
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                deployed[name].deployed.copy_(value)


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
