"""A trainer asked for short runs; what it shows of each is copied, and remembered for the checks that ask again."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from invariants.cases.train import TrainCase
from invariants.contracts.train import (
    Extraction,
    FirstStep,
    Refresh,
    TrainFunction,
    TrainRequest,
    TrainResult,
    TrainSetting,
)
from invariants.errors import SubjectContractError
from invariants.trials.run_basis import RunBasis

Parameters = dict[str, Tensor]  # "deployed, layer 1" -> a copy


@dataclass(frozen=True)
class TrainTrial:
    """A trainer on one short run."""

    function: TrainFunction
    _: KW_ONLY
    setting: TrainSetting
    case: TrainCase
    dtype: torch.dtype
    _runs: dict[tuple[tuple[str, object], ...], TrainResult] = field(default_factory=dict, init=False)

    @property
    def judgeable(self) -> bool:
        """Nothing is handed in that a dtype could not hold."""
        return True

    @cached_property
    def bases(self) -> list[RunBasis] | None:
        """Every basis that the case's run has extracted; None if the subject shows none."""
        shown = self.run().extractions
        if not shown:
            return None
        return [RunBasis(each, f"{self.case.label}, extraction {number}") for number, each in enumerate(shown)]

    def request(self, folder: Path, **changes: Any) -> TrainRequest:
        """The case's run with some things changed."""
        plain = TrainRequest(
            steps=self.case.steps, seed=self.case.seed, intervention=self.setting.intervention, folder=folder
        )
        return replace(plain, **changes)

    def run(self, **changes: Any) -> TrainResult:
        """A whole run; the same one is made once."""
        asked = {"seed": self.case.seed, "intervention": self.setting.intervention, **changes}
        key = tuple(sorted(asked.items()))
        if key not in self._runs:
            self._runs[key] = self.anew(**changes)
        return self._runs[key]

    def anew(self, **changes: Any) -> TrainResult:
        """A whole run, whether it was made before or not."""
        with working_folder() as folder:
            request = self.request(folder, **changes)
            return self.made(request, request.steps)

    def interrupted(self, after: int) -> tuple[TrainResult, TrainResult]:
        """A run that is stopped after some steps, and the rest of it."""
        with working_folder() as folder:
            stopped = self.made(self.request(folder, stop_after=after), after)
            return stopped, self.made(self.request(folder, resume=True), self.case.steps - after)

    def made(self, request: TrainRequest, due: int) -> TrainResult:
        """What the subject makes of a request, checked for its shape and copied."""
        result = self.function(request)
        if not isinstance(result, TrainResult):
            raise SubjectContractError(f"train must return a TrainResult, not {type(result).__name__}.")
        if result.steps != due:
            raise SubjectContractError(f"train made {result.steps} steps where {due} were due.")
        if not result.deployed:
            raise SubjectContractError("train must return the deployed vectors by name; there are none.")
        evidence: dict[type, Sequence[object]] = {
            FirstStep: [result.first] if result.first else [], Refresh: result.refreshes or [],
            Extraction: result.extractions or [],
        }  # fmt: skip
        for kind, shown in evidence.items():
            for each in shown:
                if not isinstance(each, kind):
                    raise SubjectContractError(
                        f"train: evidence must be of type {kind.__name__}, not {type(each).__name__}."
                    )
        return replace(
            result, deployed=tensors("deployed", result.deployed), quarantine=tensors("quarantine", result.quarantine),
            other=tensors("other", result.other),
        )  # fmt: skip


def tensors(part: str, given: Mapping[str, Tensor]) -> Parameters:
    """Copies of named tensors."""
    if not isinstance(given, Mapping) or any(not isinstance(t, Tensor) for t in given.values()):
        raise SubjectContractError(f"train: {part} must map names to tensors.")
    return {name: t.detach().clone() for name, t in given.items()}


def parameters(result: TrainResult) -> Parameters:
    """Everything that a run has trained."""
    parts = {"deployed": result.deployed, "quarantine": result.quarantine, "other": result.other}
    return {f"{part}, {name}": t for part, of_part in parts.items() for name, t in of_part.items()}


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder of one run's own, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="train-") as folder:
        yield Path(folder)
