"""Does the suite still see what it should, on this machine and with this version of torch?"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from invariants.museum.gates import problems
from invariants.museum.matrix import kill_matrix, pinned
from invariants.museum.properties import PROPERTIES


@dataclass(frozen=True, kw_only=True)
class SelfTest:
    """What running the whole museum has shown; it counts what ran."""

    faults: int
    invariants: int
    properties: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every fault was caught as it was when the suite was released, and nothing correct was accused."""
        return not self.problems

    @property
    def lines(self) -> list[str]:
        """For people."""
        what = (
            f"{self.faults} faults, {self.invariants} invariants, {self.properties} properties of optimizers, "
            f"torch {torch.__version__}"
        )
        if self.ok:
            return [what, "every fault is caught by what is named for it; nothing correct trips anything"]
        return [what, *self.problems, f"{len(self.problems)} problems: do not rely on a green report from this machine"]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "schema": "projected-grpo/selftest", "version": 1, "ok": self.ok, "faults": self.faults,
            "invariants": self.invariants, "properties": self.properties, "problems": list(self.problems),
            "torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine(),
        }  # fmt: skip


def selftest(progress: Callable[[str], object] | None = None) -> SelfTest:
    """Runs every fault of the museum again and compares with the kill matrix that ships with the suite.

    Args:
        progress: is told what comes next, such as "sign of V flipped (43 of 61)".

    Raises:
        SuiteError: the matrix that ships with the suite is missing or of another version.
    """
    expected = pinned()
    matrix = kill_matrix(progress=progress)
    found = problems(matrix, expected)
    properties = matrix.judged.intersection(PROPERTIES)
    return SelfTest(
        faults=len(matrix.rows), invariants=len(matrix.judged - properties), properties=len(properties),
        problems=tuple(found),
    )  # fmt: skip
