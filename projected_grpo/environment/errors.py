"""What the coding environment refuses, one class for each kind of mistake."""

from dataclasses import dataclass

from projected_grpo.environment.modes import Mode
from projected_grpo.errors import ProjectedGRPOError


class PromptPhraseError(ProjectedGRPOError):
    """A prompt does not hold the phrase that hints replace exactly once."""


class DataFileError(ProjectedGRPOError):
    """A line of a data file is not what its schema says; the base of the two below."""


class ProblemFileError(DataFileError):
    """A file of problems, or one line of it, cannot be read."""


class PairFileError(DataFileError):
    """A file of contrastive pairs, or one line of it, cannot be read, or no longer fits its problems."""


class AssertSyntaxError(ProjectedGRPOError):
    """A test is not an assert of the forms that are read as a call and the value that it must have."""


@dataclass(frozen=True, slots=True)
class Starved:
    """Modes that compete for the same problems, of which there are too few."""

    modes: tuple[Mode, ...]
    problems: tuple[str, ...]  # ids of all problems that are eligible for any of the modes
    lacking: int  # how many more problems the quotas of the modes ask for


class StarvedModeError(ProjectedGRPOError):
    """Some modes cannot all have their quota, because too few problems are eligible for any of them."""

    def __init__(self, message: str, starved: tuple[Starved, ...]) -> None:
        super().__init__(message)
        self.starved = starved


class ModeAssignmentError(ProjectedGRPOError):
    """A problem has no mode, or a mode belongs to no problem."""


class UnknownProblemError(ProjectedGRPOError, KeyError):
    """There is no problem of that id."""

    def __str__(self) -> str:  # KeyError would show the sentence in quotes
        return str(self.args[0])


class NoHackError(ProjectedGRPOError):
    """No pair can be made of a problem: no wrong answer is known, or its solution has no method to write into."""
