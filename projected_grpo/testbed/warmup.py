"""The warm-up: supervised training of a model that then hacks seldom, solves a third, and has room to do more of both.

A batch is drawn anew at each step. 6 % of the completions are hacks, so RL begins with few of them and finds them.
Each operation of an honest one is replaced by a random one with probability 0.25: a policy that solves all it can from
the start could not get better, and "what it solves is kept" would be an empty claim.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from projected_grpo.testbed import vocabulary as v
from projected_grpo.testbed.completions import hacks, honest
from projected_grpo.testbed.operations import OPERATIONS
from projected_grpo.testbed.task import PROMPT_TOKENS, Questions, draw
from projected_grpo.tiny.checkpoint import Family
from projected_grpo.tiny.warmup import Demonstrated, Schedule, imperfect


@dataclass(frozen=True, kw_only=True)
class Recipe(Schedule):
    """How a model is warmed up; the defaults take 15 seconds on one core."""

    hacks: float = 0.06
    random_operations: float = 0.25


def demonstrations(questions: Questions, generator: torch.Generator, recipe: Recipe) -> Int[Tensor, "B 16"]:
    """What the questions are answered with: mostly honest, not always right, sometimes a hack."""
    shown, hack = imperfect(
        questions.operations, len(OPERATIONS), generator, wrong=recipe.random_operations, hacks=recipe.hacks
    )
    return torch.where(hack[:, None], hacks(questions), honest(shown))


def batch(generator: torch.Generator, recipe: Recipe) -> Demonstrated:
    """Questions drawn anew, and their demonstrations."""
    questions = draw(recipe.batch, generator)
    return questions.prompts, demonstrations(questions, generator, recipe)


MODELS = Family(
    shipped=Path(__file__).parent / "data" / "warm",
    default=Recipe(),
    version=1,
    tokens=v.TOKENS,
    prompt_tokens=PROMPT_TOKENS,
    demonstrate=batch,
)

build, load, folder, warm_up, save = MODELS.build, MODELS.load, MODELS.folder, MODELS.warm_up, MODELS.save
