"""The warm-up: a model that then hacks seldom, solves some, and has room to do more of both.

7 % of the demonstrations are hacks. Each number that an honest one works out is replaced by a random digit with
probability 0.2: a policy that solves all it can from the start could not get better, and "what it solves is kept" would
be an empty claim.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo.arithmetic import vocabulary as v
from projected_grpo.arithmetic.completions import hacks, honest
from projected_grpo.arithmetic.expressions import DIGITS
from projected_grpo.arithmetic.task import PROMPT_TOKENS, Questions, draw
from projected_grpo.tiny.checkpoint import Family
from projected_grpo.tiny.warmup import Demonstrated, Schedule, imperfect


@dataclass(frozen=True, kw_only=True)
class Recipe(Schedule):
    """How a model is warmed up; the defaults take 20 seconds on one core."""

    learning_rate: float = 3e-3
    hacks: float = 0.07
    random_digits: float = 0.2


def demonstrations(questions: Questions, generator: torch.Generator, recipe: Recipe) -> Int[Tensor, "B 16"]:
    """What the questions are answered with: mostly honest, not always right, sometimes a hack."""
    shown, hack = imperfect(questions.values, DIGITS, generator, wrong=recipe.random_digits, hacks=recipe.hacks)
    return torch.where(hack[:, None], hacks(questions), honest(questions, shown))


LONGEST = 7  # of what is written; the rest is padding


def batch(generator: torch.Generator, recipe: Recipe) -> Demonstrated:
    """Questions drawn anew, and their demonstrations."""
    questions = draw(recipe.batch, generator)
    return questions.prompts, demonstrations(questions, generator, recipe)[:, :LONGEST]


MODELS = Family(
    shipped=Path(__file__).parent / "data" / "warm",
    default=Recipe(),
    version=1,
    tokens=v.TOKENS,
    prompt_tokens=PROMPT_TOKENS,
    demonstrate=batch,
)
