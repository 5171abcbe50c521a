"""A trial: one subject in one setting on one case. It runs the subject, keeps what it saw, and guards its contract.

Everything that a check reads here is float64 and detached, whatever the subject computes in: float64 is the arbiter.
"""

from collections.abc import Callable

from invariants.contracts import Capability
from invariants.trials.adapter import AdapterTrial
from invariants.trials.routed_step import StepTrial
from invariants.trials.split import SplitTrial

Trial = SplitTrial | StepTrial | AdapterTrial

# Which kind of trial a capability is tried by: (callable, setting=, case=, dtype=) -> trial.
TRIALS: dict[Capability, Callable[..., Trial]] = {
    "split": SplitTrial, "routed_step": StepTrial, "adapter": AdapterTrial,
}  # fmt: skip

__all__ = ["TRIALS", "AdapterTrial", "SplitTrial", "StepTrial", "Trial"]
