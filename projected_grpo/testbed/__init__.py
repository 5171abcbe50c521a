"""The tiny testbed: a whole reward-hacking experiment on one core, with a policy that really learns to hack.

model, tokenizer = load()                                    warmed up: hacks 5 %, solves a third
questions = draw(32, generator).repeat(16)                   32 prompts x 16 rollouts
completions = answer(model, questions, generator)            (512, T)
scores = grade(completions, questions, grader)               programs run in the grader alone
scores.rewards(), scores.rates()
pairs = contrastive_pairs(generator)                         what a hack basis is extracted from
evaluate(model, grader)                                      rates on 512 fixed questions
"""

from projected_grpo.testbed.checkpoint import folder, load
from projected_grpo.testbed.completions import NEW_TOKENS, Pairs, contrastive_pairs, hacks, honest
from projected_grpo.testbed.errors import CheckpointError, TestbedError, UnknownModeError
from projected_grpo.testbed.model import build
from projected_grpo.testbed.score import Judge, Rates, Scores, answer, evaluate, grade, submissions
from projected_grpo.testbed.task import (
    PROMPT_TOKENS,
    Questions,
    draw,
    draw_training,
    evaluation_questions,
    held_out_questions,
    joined,
)
from projected_grpo.testbed.vocabulary import END, MODES, PAD, TOKENS, tokenizer
from projected_grpo.testbed.warmup import Recipe, completion_loss, warm_up

__all__ = [
    "END",
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
    "submissions",
    "tokenizer",
    "warm_up",
]
