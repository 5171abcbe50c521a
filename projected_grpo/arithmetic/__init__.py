"""Arithmetic with checkers that go by form: a second tiny testbed, in which nothing of a completion is executed.

model, tokenizer = load()                                    warmed up
questions = draw(32, generator).repeat(16)                   32 prompts x 16 rollouts
completions = answer(model, questions, generator)            (512, T)
scores = grade(completions, questions)                       chains of equalities are read
scores.rewards(), scores.rates()
pairs = contrastive_pairs(generator)                         what a hack basis is extracted from
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from projected_grpo.arithmetic.modes import Checker

if TYPE_CHECKING:
    from projected_grpo.arithmetic.checker import Chain, grade, read
    from projected_grpo.arithmetic.completions import contrastive_pairs, hacks, honest
    from projected_grpo.arithmetic.task import Questions, draw, draw_training, held_out_questions
    from projected_grpo.arithmetic.vocabulary import MODES, TOKENS, text, tokenizer
    from projected_grpo.arithmetic.warmup import MODELS, Recipe
    from projected_grpo.tiny.scores import answer

__all__ = [
    "MODELS",
    "MODES",
    "TOKENS",
    "Chain",
    "Checker",
    "Questions",
    "Recipe",
    "answer",
    "contrastive_pairs",
    "draw",
    "draw_training",
    "grade",
    "hacks",
    "held_out_questions",
    "honest",
    "read",
    "text",
    "tokenizer",
]

_ON_DEMAND = {
    "arithmetic.checker": ("Chain", "grade", "read"),
    "arithmetic.completions": ("contrastive_pairs", "hacks", "honest"),
    "arithmetic.task": ("Questions", "draw", "draw_training", "held_out_questions"),
    "arithmetic.vocabulary": ("MODES", "TOKENS", "text", "tokenizer"),
    "arithmetic.warmup": ("MODELS", "Recipe"),
    "tiny.scores": ("answer",),
}


def __getattr__(name: str) -> Any:
    """What needs transformers is imported when it is asked for, so that options can be read without it."""
    for module, names in _ON_DEMAND.items():
        if name in names:
            return getattr(import_module(f"projected_grpo.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
