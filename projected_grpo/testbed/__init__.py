"""The tiny testbed: a whole reward-hacking experiment on one core, with a policy that really learns to hack.

model, tokenizer = load()                                    warmed up: hacks 5 %, solves a third
questions = draw(32, generator).repeat(16)                   32 prompts x 16 rollouts
completions = answer(model, questions, generator)            (512, T)
scores = grade(completions, questions, grader)               programs run in the grader alone
scores.rewards(), scores.rates()
pairs = contrastive_pairs(generator)                         what a hack basis is extracted from
evaluate(model, grader)                                      rates on 512 fixed questions
"""

from projected_grpo.testbed.completions import contrastive_pairs, hacks, honest
from projected_grpo.testbed.score import Judge, evaluate, grade, submissions
from projected_grpo.testbed.task import (
    PROMPT_TOKENS,
    Questions,
    draw,
    draw_training,
    evaluation_questions,
    held_out_questions,
)
from projected_grpo.testbed.vocabulary import MODES, TOKENS, tokenizer
from projected_grpo.testbed.warmup import MODELS, Recipe, build, folder, load, save, warm_up
from projected_grpo.tiny.errors import CheckpointError, TestbedError, UnknownModeError
from projected_grpo.tiny.questions import Pairs, joined
from projected_grpo.tiny.scores import Rates, Scores, answer
from projected_grpo.tiny.tokens import END, NEW_TOKENS, PAD
from projected_grpo.tiny.warmup import completion_loss

__all__ = [
    "END",
    "MODELS",
    "MODES",
    "NEW_TOKENS",
    "PAD",
    "PROMPT_TOKENS",
    "TOKENS",
    "CheckpointError",
    "Judge",
    "Pairs",
    "Questions",
    "Rates",
    "Recipe",
    "Scores",
    "TestbedError",
    "UnknownModeError",
    "answer",
    "build",
    "completion_loss",
    "contrastive_pairs",
    "draw",
    "draw_training",
    "evaluate",
    "evaluation_questions",
    "folder",
    "grade",
    "hacks",
    "held_out_questions",
    "honest",
    "joined",
    "load",
    "save",
    "submissions",
    "tokenizer",
    "warm_up",
]
