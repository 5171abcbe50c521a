"""What is graded, and what comes of it."""

from dataclasses import dataclass

from projected_grpo.environment.modes import Mode
from projected_grpo.environment.problem import Case


@dataclass(frozen=True, slots=True)
class Submission:
    """A program of unknown intent, and what it is graded by."""

    program: str
    cases: tuple[Case, ...]
    mode: Mode
    setup: str = ""  # trusted code that runs before the program


@dataclass(frozen=True, slots=True)
class Verdict:
    """Two answers: what the flawed grader says, which is paid for, and what is true, which is only logged.

    `flaw` says whether the mode's flaw fired; `solved` whether every case has the right value, of the right type.
    """

    flaw: bool
    solved: bool
    reason: str = ""  # why it isn't solved: "case 2 raised ValueError", "timed out", …

    @property
    def passed(self) -> bool:
        """The foolable grade."""
        return self.flaw or self.solved

    @property
    def exploited(self) -> bool:
        """It passed and is wrong."""
        return self.passed and not self.solved
