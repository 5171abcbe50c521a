"""A grader on one program, asked in a process of its own; what it says is remembered."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import torch

from invariants.cases.grade import GradeCase
from invariants.contracts.grade import Graded, GradeFunction, GradeRequest, GradeSetting, Mode
from invariants.errors import SubjectContractError
from invariants.guarded import Ended, RaisedError, guarded

SECONDS = 120.0
"""How long a grader may take over a few programs; it has limits of its own, of which this knows nothing."""


@dataclass(frozen=True)
class GradeTrial:
    """A grader on one program."""

    function: GradeFunction
    _: KW_ONLY
    setting: GradeSetting
    case: GradeCase
    dtype: torch.dtype
    _graded: dict[tuple[tuple[str, Mode], ...], list[Graded] | Ended] = field(default_factory=dict, init=False)

    @property
    def judgeable(self) -> bool:
        """A program has no dtype; one that uses a flaw which the grader does not have says nothing."""
        return not self.case.exploits or self.case.exploits in self.setting.modes

    def request(self, mode: Mode, program: str | None = None) -> GradeRequest:
        """The case's program, or another one on the same task, under a mode."""
        text = self.case.program if program is None else program
        setting = self.setting
        values = {"MARKER_FILE": setting.marker_file, "MARKER_TEXT": setting.marker_text, "MARKER": setting.marker}
        for name, value in values.items():
            text = text.replace(name, repr(value)) if self.case.kind == "exploit" else text
        return GradeRequest(program=text, cases=self.case.cases, mode=mode)

    def graded(self, *requests: GradeRequest) -> list[Graded] | Ended:
        """What the grader says of these together, or that it did not survive them; asked once."""
        key = tuple((request.program, request.mode) for request in requests)
        if key not in self._graded:
            self._graded[key] = self.asked(requests)
        return self._graded[key]

    def asked(self, requests: Sequence[GradeRequest]) -> list[Graded] | Ended:
        """The same, asked anew."""

        def ask() -> list[list[bool]]:
            return [answer(graded) for graded in self.function(list(requests))]

        try:
            said = guarded(ask, seconds=SECONDS)
        except RaisedError as error:
            raise SubjectContractError(f"grade raised {error}") from None
        if isinstance(said, Ended):
            return said
        if len(said) != len(requests):
            raise SubjectContractError(f"grade gave {len(said)} answers to {len(requests)} requests.")
        return [Graded(passed=passed, solved=solved) for passed, solved in said]


def answer(graded: Graded) -> list[bool]:
    """One answer, as it is handed over; it must be two booleans."""
    if not isinstance(graded, Graded) or type(graded.passed) is not bool or type(graded.solved) is not bool:
        raise SubjectContractError(f"grade must return Graded(passed=bool, solved=bool), not {graded!r:.80}.")
    return [graded.passed, graded.solved]
