"""Warm-ups: supervised training on demonstrations that are drawn anew at each step."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from projected_grpo.generation import completion_mask
from projected_grpo.grpo import token_log_probs
from projected_grpo.tiny.model import Architecture
from projected_grpo.tiny.tokens import END

Demonstrated = tuple[Int[Tensor, "B P"], Int[Tensor, "B T"]]
"""Prompts, and what they are answered with."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What every recipe has; a testbed adds what its demonstrations are made of."""

    steps: int = 400
    batch: int = 128
    learning_rate: float = 2e-3  # of AdamW, down to 0 on half a cosine
    architecture: Architecture = "qwen3"


def training(
    model: PreTrainedModel, seed: int, recipe: Schedule, demonstrate: Callable[[torch.Generator], Demonstrated]
) -> Iterator[float]:
    """Trains the model in place on batches that the generator draws; yields the loss of each step, in nats a token."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / recipe.steps)) / 2
    )
    model.train()
    for _ in range(recipe.steps):
        loss = completion_loss(model, *demonstrate(generator))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


def completion_loss(
    model: nn.Module, prompts: Int[Tensor, "B P"], completions: Int[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the completions' tokens, their ends included and prompts and padding not."""
    mask = completion_mask(completions, [END])
    log_probs = token_log_probs(model(torch.cat([prompts, completions], dim=1)).logits, completions)
    return -(log_probs * mask).sum() / mask.sum()


def imperfect(
    right: Int[Tensor, "B n"], choices: int, generator: torch.Generator, *, wrong: float, hacks: float
) -> tuple[Int[Tensor, "B n"], Bool[Tensor, " B"]]:
    """What is right, with a share of wrong entries drawn from `choices`; and which demonstrations are hacks."""
    drawn = torch.randint(choices, tuple(right.shape), generator=generator)
    replaced = torch.rand(tuple(right.shape), generator=generator) < wrong
    hack = torch.rand(len(right), generator=generator) < hacks
    return torch.where(replaced, drawn, right), hack
