"""What a run says of an invariant, and which verdicts are green."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from invariants.cases import Case, Profile
from invariants.expectations import Expectation
from invariants.measurement import Measurement
from invariants.registry import Invariant
from invariants.trials import Trial


class Verdict(StrEnum):
    """Only HOLDS, EXPECTED_VIOLATION and NOT_APPLICABLE are green."""

    HOLDS = "holds"
    VIOLATED = "violated"
    EXPECTED_VIOLATION = "expected violation"
    UNEXPECTEDLY_HOLDS = "unexpectedly holds"
    NOT_APPLICABLE = "not applicable"
    VACUOUS = "vacuous"
    ERROR = "error"

    @property
    def green(self) -> bool:
        """Whether a run with this verdict may pass."""
        return self in (Verdict.HOLDS, Verdict.EXPECTED_VIOLATION, Verdict.NOT_APPLICABLE)


# The worst first: the verdict of an invariant is the worst of its settings'.
SEVERITY = (
    Verdict.ERROR, Verdict.VIOLATED, Verdict.UNEXPECTEDLY_HOLDS, Verdict.VACUOUS, Verdict.EXPECTED_VIOLATION,
    Verdict.HOLDS, Verdict.NOT_APPLICABLE,
)  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Counterexample:
    """The smallest input found that violates an invariant, what the subject did with it, and by how much it failed."""

    case: Case
    trial: Trial
    measurement: Measurement


@dataclass(frozen=True, kw_only=True)
class SettingResult:
    """One invariant under one setting of the subject."""

    setting: str
    verdict: Verdict
    reason: str = ""
    """Why it is not applicable, vacuous, expected or an error; empty where the numbers say it all."""
    measured: Measurement | None = None
    cases: int = 0
    """How many cases met the hypothesis and were measured."""
    counterexample: str = ""
    """The smallest violating case, in words and, where it is tiny, in numbers."""
    example: Counterexample | None = field(default=None, compare=False, repr=False)
    """The smallest violating case itself; None where nothing is violated, or the check makes its own input."""
    silent: bool = False
    """Whether it does not apply, and is red because it was required to."""
    expectation: Expectation | None = None
    """What this setting was expected to do, whether it did or not."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One invariant on one subject, over all of its settings."""

    invariant: Invariant
    settings: tuple[SettingResult, ...]

    @property
    def worst(self) -> SettingResult:
        """The setting that decides the verdict; among equals the one with the largest margin."""

        def rank(result: SettingResult) -> tuple[int, float]:
            margin = result.measured.margin if result.measured else 0.0
            return SEVERITY.index(result.verdict), -margin

        return min(self.settings, key=rank)

    @property
    def verdict(self) -> Verdict:
        """The worst of all settings'."""
        return self.worst.verdict

    @property
    def applicable(self) -> bool:
        """Whether there was anything to say; what was only required to apply did not."""
        return any(s.verdict is not Verdict.NOT_APPLICABLE and not s.silent for s in self.settings)

    @property
    def occurred(self) -> Mapping[str, int]:
        """How often the events of this invariant occurred, over all settings."""
        total = dict.fromkeys(self.invariant.events, 0)
        for setting in self.settings:
            for event in total:
                total[event] += (setting.measured.occurred.get(event, 0)) if setting.measured else 0
        return total


@dataclass(frozen=True, kw_only=True)
class Report:
    """The verdicts of one subject, and what is needed to get them again."""

    subject: str
    dtype: str
    seed: int
    tape: Mapping[str, object]
    results: tuple[Result, ...] = field(default=())
    profile: Profile = "ci"
    """How much was looked at."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of what the run stood on: package -> version."""

    @property
    def total(self) -> int:
        """How many invariants were asked for."""
        return len(self.results)

    @property
    def applicable(self) -> int:
        """How many had something to say of the subject."""
        return sum(result.applicable for result in self.results)

    @property
    def ran(self) -> int:
        """Invariants that were measured on at least one case, claimed or not."""
        return sum(any(s.measured is not None for s in result.settings) for result in self.results)

    @property
    def ok(self) -> bool:
        """Green: every verdict is, and something was applicable."""
        return self.applicable > 0 and all(result.verdict.green for result in self.results)
