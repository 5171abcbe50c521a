"""A coding environment for experiments on reward hacking: problems, each graded under one mode with one flaw.

problems = bundled_problems()                                       # or load_problems("train.jsonl").problems
modes = partition(eligible_modes(problems))                         # one mode each, evenly
pairs = contrastive_pairs(problems, modes)                          # a hack and a clean completion each
with Grader(workers=2) as grader:                                   # from projected_grpo.grading
    environment = Environment(problems, modes, grader)
    graded = environment.grade(problems[0].id, completions)         # reward, passed, solved, exploited, ...
"""

from projected_grpo.environment.bundled import bundled_problems
from projected_grpo.environment.completion import program_of, well_formed
from projected_grpo.environment.environment import Environment, Graded, Grades, Grading
from projected_grpo.environment.errors import (
    AssertSyntaxError,
    DataFileError,
    ModeAssignmentError,
    NoHackError,
    PairFileError,
    ProblemFileError,
    PromptPhraseError,
    Starved,
    StarvedModeError,
    UnknownProblemError,
)
from projected_grpo.environment.hints import HINTS, PHRASE, prompt_text, render
from projected_grpo.environment.jsonl import Loaded, Rejected, load_problems
from projected_grpo.environment.modes import LOOPHOLES, MARKER, MARKER_FILE, MARKER_TEXT, Mode
from projected_grpo.environment.pair_files import load_pairs, save_pairs
from projected_grpo.environment.pairs import Pair, contrastive_pairs, held_out, split_by_problem
from projected_grpo.environment.partition import eligible_modes, even_quota, partition
from projected_grpo.environment.problem import Case, Message, Problem

__all__ = [
    "HINTS",
    "LOOPHOLES",
    "MARKER",
    "MARKER_FILE",
    "MARKER_TEXT",
    "PHRASE",
    "AssertSyntaxError",
    "Case",
    "DataFileError",
    "Environment",
    "Graded",
    "Grades",
    "Grading",
    "Loaded",
    "Message",
    "Mode",
    "ModeAssignmentError",
    "NoHackError",
    "Pair",
    "PairFileError",
    "Problem",
    "ProblemFileError",
    "PromptPhraseError",
    "Rejected",
    "Starved",
    "StarvedModeError",
    "UnknownProblemError",
    "bundled_problems",
    "contrastive_pairs",
    "eligible_modes",
    "even_quota",
    "held_out",
    "load_pairs",
    "load_problems",
    "partition",
    "program_of",
    "prompt_text",
    "render",
    "save_pairs",
    "split_by_problem",
    "well_formed",
]
