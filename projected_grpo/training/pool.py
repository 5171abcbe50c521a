"""Pools of rollouts: what a teacher wrote, with the flawed grader's word and the oracle's, each under its own name.

One JSON object a line, gzipped:

    {"key": of the prompt, "mode": ..., "prompt": its tokens, "tokens": of the completion, "completion": what they read
     as, "passed": bool, "solved": bool}

`passed` is the foolable grade and `solved` the strict one. Training grades a teacher's completion again by whatever
grades the student's, so a pool never decides a reward; its labels choose contrastive pairs. Tokens are what is learned
from: text that is tokenized again may be other tokens. So a pool belongs to one tokenizer.
"""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from projected_grpo.training.errors import PoolError
from projected_grpo.training.loopholes import loophole
from projected_grpo.training.task import Prompt, Scored, Task, TokenPair
from projected_grpo.training.teacher import drawn
from projected_grpo.whole_files import whole

FIELDS = {
    "key": str, "mode": str, "prompt": list, "tokens": list, "completion": str, "passed": bool, "solved": bool,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rollout:
    """One line of a pool."""

    key: str  # of the prompt, as the task has it
    mode: StrEnum
    prompt: tuple[int, ...]  # its tokens
    tokens: tuple[int, ...]  # of the completion, its end included
    completion: str  # what they read as
    passed: bool
    solved: bool

    @property
    def exploited(self) -> bool:
        """A hack."""
        return self.passed and not self.solved


class Pool:
    """Rollouts by prompt.

    >>> from projected_grpo.environment import Mode
    >>> rollout = Rollout("k", Mode.NONE, (1,), (7, 2), "text", passed=True, solved=True)
    >>> Pool([rollout]).draw("k", 2, torch.Generator())
    [(7, 2), (7, 2)]
    """

    def __init__(self, rollouts: Iterable[Rollout]) -> None:
        self._by_key: defaultdict[str, list[Rollout]] = defaultdict(list)
        for rollout in rollouts:
            self._by_key[rollout.key].append(rollout)
        if not self._by_key:
            raise PoolError("The pool is empty; build one with `projected-grpo pool`.")

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def check_tokens(self, vocabulary: int) -> None:
        """Raises PoolError if a prompt or a completion is empty, or has a token that the model does not know."""
        for rollout in (each for rollouts in self._by_key.values() for each in rollouts):
            for ids in (rollout.prompt, rollout.tokens):
                if not ids or not all(isinstance(token, int) and 0 <= token < vocabulary for token in ids):
                    raise PoolError(
                        f"The pool's rollout of {rollout.key!r} has no tokens, or some that the model's {vocabulary} "
                        "do not include; sample a pool with this model's tokenizer."
                    )

    def draw(self, key: str, count: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """`count` completions of a prompt, drawn with replacement; none if the pool does not have the prompt."""
        return drawn([rollout.tokens for rollout in self._by_key.get(key, [])], count, generator)

    def pairs(self, count: int, modes: Sequence[StrEnum], generator: torch.Generator) -> list[TokenPair]:
        """Contrastive pairs of prompts with a hack and a solution: the modes in turn, `count` in all.

        Raises PoolError if a mode has none.
        """
        wanted = tuple(modes) or tuple(sorted({r.mode for rs in self._by_key.values() for r in rs if r.exploited}))
        if not wanted:
            raise PoolError("The pool has no hack, so there is nothing to tell from a solution; sample another run.")
        by_mode: dict[StrEnum, list[tuple[Rollout, Rollout]]] = {mode: [] for mode in wanted}
        for key in sorted(self._by_key):
            hacks = [r for r in self._by_key[key] if r.exploited and r.mode in by_mode]
            clean = [r for r in self._by_key[key] if r.solved]
            for hack, right in zip(hacks, clean, strict=False):
                by_mode[hack.mode].append((hack, right))
        for mode, found in by_mode.items():
            if not found:
                raise PoolError(f"The pool has no prompt with both a hack and a solution under {mode}; sample more.")
        chosen = []
        for at in range(count):
            found = by_mode[wanted[at % len(wanted)]]
            chosen.append(found[int(torch.randint(len(found), (), generator=generator))])
        return [TokenPair(hack.prompt, hack.tokens, right.tokens, hack.mode) for hack, right in chosen]


def rollouts_of(
    task: Task, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]], scored: Scored
) -> list[Rollout]:
    """Graded completions as lines of a pool."""
    return [
        Rollout(prompt.key, prompt.mode, prompt.ids, tuple(ids), task.text(ids), bool(passed), bool(solved))
        for prompt, ids, passed, solved in zip(
            prompts, completions, scored.passed.tolist(), scored.solved.tolist(), strict=True
        )
    ]


def write(path: Path, rollouts: Iterable[Rollout]) -> None:
    """Writes a pool under a temporary name and renames it; the same rollouts give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial, partial.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        for rollout in rollouts:
            packed.write((json.dumps(asdict(rollout), sort_keys=True) + "\n").encode())


def read(path: Path) -> Pool:
    """A pool from its file. Raises PoolError, naming the line, for anything that is none."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return Pool(_rollout(path, number, line) for number, line in enumerate(file, start=1) if line.strip())
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PoolError(f"{path} cannot be read as a pool ({error}); write one with `projected-grpo pool`.") from error


def _rollout(path: Path, number: int, line: str) -> Rollout:
    try:
        entry: dict[str, Any] = json.loads(line)
        wrong = [name for name, kind in FIELDS.items() if not isinstance(entry[name], kind)]
        if wrong:
            raise PoolError(f"{path}, line {number}: {wrong[0]} is not a {FIELDS[wrong[0]].__name__}; build it again.")
        fields: dict[str, Any] = {
            name: tuple(entry[name]) if kind is list else entry[name] for name, kind in FIELDS.items()
        }
        return Rollout(**{**fields, "mode": loophole(entry["mode"])})
    except PoolError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise PoolError(f"{path}, line {number} is no rollout of a pool ({error}); build the pool again.") from None
