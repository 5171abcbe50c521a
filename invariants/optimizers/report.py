"""Everything that was found of one optimizer, and of many."""

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from invariants.errors import SuiteError
from invariants.optimizers.finding import Answer, Finding
from invariants.optimizers.guarantees import GUARANTEES, SPACES
from invariants.optimizers.probes import PROBES
from invariants.optimizers.routing import SpaceReport
from invariants.optimizers.variants import Found, changes
from reference import Space


@dataclass(frozen=True, kw_only=True)
class OptimizerReport:
    """One optimizer.

    problem: why it could not be run, in its own words; None if it ran.
    probes: property -> what was found.
    spaces: the three spaces; empty if it did not run.
    variants: decay, clips and float32 -> property, or guarantee@space -> what was found.
    seconds: what measuring it took; not part of what is compared or written.
    """

    name: str
    source: str
    kwargs: Mapping[str, object]
    manner: str
    why: str
    problem: str | None = None
    probes: Mapping[str, Finding] = field(default_factory=dict)
    spaces: Mapping[Space, SpaceReport] = field(default_factory=dict)
    variants: Mapping[str, Found] = field(default_factory=dict)
    advice: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def ran(self) -> bool:
        """Whether it could be run."""
        return self.problem is None

    @property
    def findings(self) -> dict[str, Finding]:
        """All that can be required by name: probes, and guarantee@space."""
        guaranteed = {
            f"{name}@{space}": finding
            for space, report in self.spaces.items()
            for name, finding in report.guarantees.items()
        }
        return {**self.probes, **guaranteed}

    @property
    def changed(self) -> dict[str, dict[str, tuple[Finding, Finding]]]:
        """What decay, clips and float32 do: variation -> name -> (found before, found then)."""
        return {name: changes(found, self.findings) for name, found in self.variants.items()}

    def holds(self, name: str) -> bool:
        """Whether a property, or a guarantee@space, was found; a guarantee without a space in every space.

        Raises SuiteError for a name that nothing has.
        """
        check_names([name])
        found = self.required(name).values()
        return bool(found) and all(finding.holds for finding in found)

    def required(self, name: str) -> dict[str, Finding]:
        """What a name of `require` stands for; empty if nothing of the kind was measured."""
        found = self.findings
        names = [name] if name in found else [f"{name}@{space}" for space in SPACES]
        return {each: found[each] for each in names if each in found}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Many optimizers, with what is needed to get the same figures again.

    required: the names that were demanded of each.
    """

    reports: Sequence[OptimizerReport]
    required: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def ran(self) -> int:
        """How many could be run."""
        return sum(report.ran for report in self.reports)

    @property
    def failures(self) -> list[str]:
        """What was demanded and not found, a sentence each; also of what did not run."""
        return [told for report in self.reports for name in self.required for told in unmet(report, name)]

    @property
    def ok(self) -> bool:
        """Whether something ran, and all that was demanded was found."""
        return self.ran > 0 and not self.failures

    @property
    def head(self) -> str:
        """How many ran, of those that are known."""
        return f"ran {self.ran} / known {len(self.reports)}"


def unmet(report: OptimizerReport, name: str) -> list[str]:
    """Why an optimizer does not do what is demanded; empty if it does."""
    if not report.ran:
        return [f"{report.name}: {name} is demanded, and it did not run: {report.problem}"]
    return [
        f"{report.name}: {each} is demanded, and {told(finding)}"
        for each, finding in report.required(name).items()
        if not finding.holds
    ]


def check_names(require: Collection[str]) -> None:
    """Raises SuiteError for what is neither a property nor a guarantee, alone or @ a space."""
    known = {*PROBES, *GUARANTEES, *(f"{name}@{space}" for name in GUARANTEES for space in SPACES)}
    for name in require:
        if name not in known:
            raise SuiteError(
                f"Nothing is called {name!r}; there are {', '.join((*PROBES, *GUARANTEES))}, the last "
                f"{len(GUARANTEES)} also with @{', @'.join(SPACES)}."
            )


def told(finding: Finding) -> str:
    """A finding in the middle of a sentence."""
    if finding.answer is Answer.NOT_MEASURED:
        return f"was not measured: {finding.note}"
    return f"is {finding}"


def versions(package: str | None) -> dict[str, str]:
    """What the figures depend on."""
    from importlib import metadata

    found = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    if package is not None:
        found["pytorch_optimizer"] = package
    try:
        found["projected-grpo"] = metadata.version("projected-grpo")
    except metadata.PackageNotFoundError:
        found["projected-grpo"] = "not installed"
    return found
