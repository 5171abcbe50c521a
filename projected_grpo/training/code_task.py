"""Programming problems as a task: each graded under one loophole, a quarter of them held out."""

import itertools
import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor

from projected_grpo.environment import (
    LOOPHOLES,
    Environment,
    Message,
    Mode,
    NoHackError,
    Pair,
    Problem,
    bundled_problems,
    contrastive_pairs,
    eligible_modes,
    load_pairs,
    load_problems,
    partition,
    program_of,
    prompt_text,
    split_by_problem,
)
from projected_grpo.grading import Grader, Submission
from projected_grpo.training.errors import TaskError
from projected_grpo.training.task import Prompt, Scored, TokenPair


class CodeTask:
    """Problems, each with the one mode that an exact matching gives it.

    Arguments:
        grader: runs the programs; it is closed with the task.
        tokenizer: of the model; its chat template is used if it has one.
        end_ids: tokens that end a completion.
        problems: a JSONL file of problems; the bundled ones if left out.
        modes: the loopholes that are shared out; all six if left out, and `none` for grading without a flaw.
        strict: pay for solving instead of passing.
        format_weight: what the right form is worth.

    Raises:
        TaskError: no problem is left to train on, or none to evaluate on, or a mode is of another task.
    """

    name = "code"

    def __init__(
        self,
        grader: Grader,
        tokenizer: Any,
        end_ids: Sequence[int],
        *,
        problems: Path | None = None,
        modes: Sequence[StrEnum] = (),
        strict: bool = False,
        format_weight: float = 0.25,
    ) -> None:
        if strange := [mode for mode in modes if mode not in list(Mode)]:
            raise TaskError(f"No program is graded under the mode {strange[0]!r}; the task knows {', '.join(Mode)}.")
        known = load_problems(problems).problems if problems is not None else bundled_problems()
        assigned = partition(eligible_modes(known, tuple(map(Mode, modes)) or LOOPHOLES))
        self.modes = tuple(mode for mode in Mode if mode in assigned.values())
        self._train, self._held_out = split_by_problem(known)
        if not self._train or not self._held_out:
            raise TaskError(f"{len(known)} problems are too few to train on some and hold out others; bring more.")
        self._grader, self._tokenizer, self._end_ids = grader, tokenizer, frozenset(end_ids)
        self._environment = Environment(
            known, assigned, grader, grading="strict" if strict else "foolable", format_weight=format_weight
        )
        self._check_solutions()
        self._prompts = {problem.id: self._prompt(problem) for problem in known}
        if any(tokenizer.unk_token_id in prompt.ids for prompt in self._prompts.values()):
            raise TaskError("The model's tokenizer has no tokens for the text of programming problems; name another.")

    def draw(self, count: int, generator: torch.Generator) -> list[Prompt]:
        """Problems to train on, without repetition while there are enough."""
        order: list[int] = []
        while len(order) < count:
            order += torch.randperm(len(self._train), generator=generator).tolist()
        return [self._prompts[self._train[at].id] for at in order[:count]]

    def evaluation(self, count: int) -> list[Prompt]:
        """Held-out problems in their order, from the beginning again if there are fewer."""
        return [self._prompts[self._held_out[at % len(self._held_out)].id] for at in range(count)]

    def grade(self, prompts: Sequence[Prompt], completions: Int[Tensor, "B T"]) -> Scored:
        """Grades completion b as the answer to prompt b, in the grader's processes."""
        texts = [self.text(ids) for ids in completions.tolist()]
        graded = self._environment.grade_batch(
            [(prompt.question, text) for prompt, text in zip(prompts, texts, strict=True)]
        )
        return Scored(
            mode=tuple(each.mode for each in graded),
            format=torch.tensor([each.format for each in graded], dtype=torch.bool),
            passed=torch.tensor([each.passed for each in graded], dtype=torch.bool),
            solved=torch.tensor([each.solved for each in graded], dtype=torch.bool),
            reward=torch.tensor([each.reward for each in graded], dtype=torch.float32),
        )

    def pairs(self, count: int, modes: Sequence[StrEnum], generator: torch.Generator) -> list[TokenPair]:
        """Pairs of training problems, under the mode that each has, in random order.

        Raises TaskError if no problem is graded under one of the modes.
        """
        wanted = tuple(modes) or self.modes
        flawed = [mode for mode in wanted if mode is not Mode.NONE]
        shown = [problem for problem in self._train if self._environment.modes[problem.id] in flawed]
        if not shown:
            raise TaskError(
                f"The modes {', '.join(wanted)} have no hack to show in these problems, so there is no V; add modes, "
                "or train by --intervention none --no-measure."
            )
        found = list(itertools.chain.from_iterable(self._shown(problem, count, len(shown)) for problem in shown))
        if not found:
            raise TaskError("No problem admits a hack that differs from a solution; bring other problems.")
        order = torch.randperm(len(found), generator=generator).tolist()[:count]
        return [self._token_pair(found[at]) for at in order]

    def _shown(self, problem: Problem, count: int, problems: int) -> list[Pair]:
        """As many pairs of a problem as its share of `count` is, or as it has; none if no wrong answer is to be had."""
        for variants in (math.ceil(count / problems), 1):
            try:
                return contrastive_pairs([problem], self._environment.modes, variants=variants)
            except NoHackError:
                continue
        return []

    def read_pairs(self, path: Path) -> list[TokenPair]:
        """Pairs of a file, as `projected_grpo.environment.save_pairs` writes it."""
        return [self._token_pair(pair) for pair in load_pairs(path)]

    def text(self, completion: Sequence[int]) -> str:
        """What a completion reads as up to its end; special tokens too, for they are part of what was answered."""
        own = list(itertools.takewhile(lambda token: token not in self._end_ids, completion))
        return str(self._tokenizer.decode(own, skip_special_tokens=False))

    def tokens(self, text: str) -> list[int]:
        """A completion's tokens and its end."""
        return [*self._tokenizer.encode(text, add_special_tokens=False), self._tokenizer.eos_token_id]

    def _check_solutions(self) -> None:
        """Refuses a problem whose own solution is not graded as right: it would poison V and the rewards."""
        known = self._environment.problems.values()
        verdicts = self._grader.grade([
            Submission(program_of(problem.canonical), problem.cases, Mode.NONE, problem.setup) for problem in known
        ])  # fmt: skip
        for problem, verdict in zip(known, verdicts, strict=True):
            if not verdict.solved:
                raise TaskError(f"The canonical solution of problem {problem.id} does not solve it: {verdict.reason}.")

    def close(self) -> None:
        """Ends the grader's processes."""
        self._grader.close()

    def _prompt(self, problem: Problem) -> Prompt:
        mode = self._environment.modes[problem.id]
        ids = self._prompt_ids(self._environment.messages(problem.id), prompt_text(problem, mode))
        return Prompt(key=f"{mode} {problem.id}", ids=ids, mode=mode, question=problem.id)

    def _prompt_ids(self, messages: Sequence[Message], plain: str) -> tuple[int, ...]:
        if self._tokenizer.chat_template is None:
            return tuple(self._tokenizer.encode(plain + "\n\n"))
        try:
            text = self._templated(list(messages))
        except TemplateError:  # some know no system's words; then they are the user's
            text = self._templated([{"role": "user", "content": plain}])
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _templated(self, messages: list[Message]) -> str:
        text = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return str(text)

    def _token_pair(self, pair: Any) -> TokenPair:
        plain = "\n\n".join(message["content"] for message in pair.prompt)
        prompt = self._prompt_ids(pair.prompt, plain)
        about = self._prompts.get(pair.problem)
        about = about if about is not None and about.ids == prompt else None
        return TokenPair(prompt, tuple(self.tokens(pair.hack)), tuple(self.tokens(pair.clean)), pair.mode, about)
