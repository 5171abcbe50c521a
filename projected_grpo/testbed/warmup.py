"""The warm-up: supervised training of a model that then hacks seldom, solves a third, and has room to do more of both.

A batch is drawn anew at each step. 6 % of the completions are hacks, so RL begins with few of them and finds them.
Each operation of an honest one is replaced by a random one with probability 0.25: a policy that solves all it can from
the start could not get better, and "what it solves is kept" would be an empty claim.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from projected_grpo.generation import completion_mask
from projected_grpo.grpo import token_log_probs
from projected_grpo.testbed import vocabulary as v
from projected_grpo.testbed.completions import hacks, honest
from projected_grpo.testbed.model import Architecture, build
from projected_grpo.testbed.operations import OPERATIONS
from projected_grpo.testbed.task import Questions, draw

VERSION = 1
"""Raised when the same recipe and seed begin to mean other batches; caches of the old ones are left alone then."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is warmed up; the defaults take 15 seconds on one core."""

    steps: int = 400
    batch: int = 128
    learning_rate: float = 2e-3  # of AdamW, down to 0 on half a cosine
    hacks: float = 0.06
    random_operations: float = 0.25
    architecture: Architecture = "qwen3"


def warm_up(seed: int, recipe: Recipe = Recipe()) -> PreTrainedModel:
    """A model after the whole recipe, in eval mode; initialisation and batches depend on the seed alone."""
    model = build(seed, architecture=recipe.architecture)
    for _ in training(model, seed, recipe):
        pass
    return model.eval()


def training(model: PreTrainedModel, seed: int, recipe: Recipe = Recipe()) -> Iterator[float]:
    """Trains the model in place; yields the loss of each step, in nats a token."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / recipe.steps)) / 2
    )
    model.train()
    for _ in range(recipe.steps):
        questions = draw(recipe.batch, generator)
        loss = completion_loss(model, questions.prompts, demonstrations(questions, generator, recipe))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


def demonstrations(questions: Questions, generator: torch.Generator, recipe: Recipe) -> Int[Tensor, "B 16"]:
    """What the questions are answered with: mostly honest, not always right, sometimes a hack."""
    right = questions.operations  # (B, 2)
    wrong = torch.randint(len(OPERATIONS), tuple(right.shape), generator=generator)
    replaced = torch.rand(tuple(right.shape), generator=generator) < recipe.random_operations
    hack = torch.rand(len(questions), generator=generator) < recipe.hacks
    return torch.where(hack[:, None], hacks(questions), honest(torch.where(replaced, wrong, right)))


def completion_loss(
    model: nn.Module, prompts: Int[Tensor, "B P"], completions: Int[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the completions' tokens, their ends included and prompts and padding not."""
    mask = completion_mask(completions, [v.END])
    log_probs = token_log_probs(model(torch.cat([prompts, completions], dim=1)).logits, completions)
    return -(log_probs * mask).sum() / mask.sum()
