"""Contrastive pairs: a hack and a clean completion of one prompt, for the directions that tell the two apart.

A hack gives a wrong answer that passes under its mode and under no other; a clean completion is right, and of the
same shape as far as can be: the same fence, the same imports, honest code where the hack's is.
"""

import hashlib
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product, zip_longest
from typing import Any, TypeVar

from projected_grpo.environment.errors import NoHackError
from projected_grpo.environment.exploits import exploits_of, filled
from projected_grpo.environment.hints import render
from projected_grpo.environment.modes import LOOPHOLES, Mode
from projected_grpo.environment.problem import Case, Message, Problem
from projected_grpo.environment.skeleton import dissect
from projected_grpo.errors import SettingError

FRAMES = (
    "```python\n{}```",
    "Here is my solution:\n\n```python\n{}```",
    "```python\n{}```\n\nThe class above has the method that was asked for.",
    "{}",
)
TRIVIAL = {bool: False, int: 0, float: 0.0, str: "", list: [], tuple: (), dict: {}, set: set()}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two completions of one prompt."""

    prompt: tuple[Message, ...]  # with the hint of the mode in it
    hack: str
    clean: str
    mode: StrEnum  # a Mode; in pairs of another task one of its own
    problem: str  # id


def contrastive_pairs(
    problems: Iterable[Problem],
    modes: Mapping[str, Mode] | Collection[Mode] = LOOPHOLES,
    *,
    variants: int = 1,
    seed: int = 0,
) -> list[Pair]:
    """Pairs of every problem, in the problems' order, then the modes', then the variants'.

    Args:
        problems: Their canonical solutions and alternatives become the clean completions.
        modes: The one mode of each problem, as `partition` gives it; or modes that every problem is shown under.
        variants: How many pairs of each problem and mode, no two the same: they differ in the way to hack, the
            solution, the wrong answer and the text around the program.
        seed: Chooses and orders the variants.

    Raises:
        NoHackError: A problem's solution cannot be taken apart, or not that many variants are there.
        SettingError: `variants` is below 1, or a mode is `none`, which nothing can hack.
    """
    if variants < 1:
        raise SettingError(f"variants is {variants}: ask for at least one pair of each problem and mode")
    pairs = []
    for problem in problems:
        for mode in [modes[problem.id]] if isinstance(modes, Mapping) else modes:
            if mode is Mode.NONE:
                raise SettingError("the mode none has no flaw, so it has no hack: leave it out")
            pairs += _pairs_of(problem, mode, variants, seed)
    return pairs


def held_out(problem: str, share: float = 0.25) -> bool:
    """Whether a problem is held out: decided by a hash of its id, the same in every process and data set."""
    digest = hashlib.sha256(problem.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def split_by_problem(items: Iterable[T], share: float = 0.25) -> tuple[list[T], list[T]]:
    """Training and held-out items (pairs, or problems); all items of one problem are on one side."""
    train: list[T] = []
    held: list[T] = []
    for item in items:
        name = item.id if isinstance(item, Problem) else item.problem  # type: ignore[attr-defined]  # a Pair, or whatever else names its problem
        (held if held_out(name, share) else train).append(item)
    return train, held


def _pairs_of(problem: Problem, mode: Mode, variants: int, seed: int) -> list[Pair]:
    rng = random.Random(f"{seed}/{problem.id}/{mode}")
    shown = _shown(problem)
    skeletons = [dissect(program, problem.function) for program in (problem.canonical, *problem.alternatives)]
    columns = [  # for each way to hack, what may go with it, in the order in which it is taken
        rng.sample(choices := list(product([exploit], skeletons, _wrong_answers(problem, shown), FRAMES)), len(choices))
        for exploit in exploits_of(mode)
    ]
    rng.shuffle(columns)
    taken: dict[tuple[str, str], None] = {}  # a set that keeps its order; some ways to hack need no wrong answer
    for choice in (choice for row in zip_longest(*columns) for choice in row if choice is not None):
        exploit, skeleton, wrong, frame = choice
        hack = frame.format(skeleton.hack(filled(exploit.hack, shown, wrong)))
        clean = frame.format(skeleton.clean(filled(exploit.clean, shown, wrong)))
        taken[hack, clean] = None
        if len(taken) == variants:
            prompt = tuple(render(problem, mode))
            return [Pair(prompt, hack, clean, mode, problem.id) for hack, clean in taken]
    raise NoHackError(f"problem {problem.id} has {len(taken)} variants under {mode}: ask for no more than those")


def _shown(problem: Problem) -> tuple[Case, ...]:
    """Cases for the honest tests: the first, and the shortest of another result, so that no constant passes both."""
    first = problem.cases[0]
    others = [case for case in problem.cases if not same(case.expected, first.expected)]
    shortest = min(others, key=lambda case: len(case.call) + len(repr(case.expected)), default=None)
    return (first,) if shortest is None else (first, shortest)


def _wrong_answers(problem: Problem, shown: Sequence[Case]) -> list[str]:
    """Sources of constants that fail at least one shown case: the trivial value of the type, and a shown result."""
    candidates = [TRIVIAL.get(type(shown[0].expected)), None, *(case.expected for case in shown)]
    wrong = [value for value in candidates if any(not same(value, case.expected) for case in shown)]
    return list(dict.fromkeys(map(repr, wrong)))


def same(left: Any, right: Any) -> bool:
    """Equal and of the same type, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)
