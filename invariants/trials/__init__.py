"""A trial: one subject in one setting on one case. It runs the subject, keeps what it saw, and guards its contract.

Everything that a check reads here is float64 and detached, whatever the subject computes in: float64 is the arbiter.
"""

from collections.abc import Callable

from invariants.contracts import Capability
from invariants.trials.adapter import AdapterTrial
from invariants.trials.extraction import ExtractionTrial
from invariants.trials.grade import GradeTrial
from invariants.trials.grpo import GRPOTrial
from invariants.trials.logs import LogTrial
from invariants.trials.routed_step import StepTrial
from invariants.trials.split import SplitTrial
from invariants.trials.train import TrainTrial

Trial = SplitTrial | StepTrial | AdapterTrial | GRPOTrial | ExtractionTrial | TrainTrial | GradeTrial | LogTrial

# Which kind of trial a capability is tried by: (callable, setting=, case=, dtype=) -> trial.
TRIALS: dict[Capability, Callable[..., Trial]] = {
    "split": SplitTrial, "routed_step": StepTrial, "adapter": AdapterTrial,
    "grpo": GRPOTrial, "extraction": ExtractionTrial, "train": TrainTrial, "grade": GradeTrial,
    "logs": LogTrial,
}  # fmt: skip

__all__ = [
    "TRIALS",
    "AdapterTrial",
    "ExtractionTrial",
    "GRPOTrial",
    "GradeTrial",
    "LogTrial",
    "SplitTrial",
    "StepTrial",
    "TrainTrial",
    "Trial",
]
