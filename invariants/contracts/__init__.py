"""The contracts of the capabilities: what each callable of a subject takes and returns, and its settings."""

from typing import Literal

from invariants.contracts.adapter import AdaptedLinear, AdapterFactory, AdapterSetting
from invariants.contracts.claims import Claims
from invariants.contracts.extraction import ContrastiveProblem, ExtractionFunction, ExtractionSetting, Floor
from invariants.contracts.grade import Graded, GradeFunction, GradeRequest, GradeSetting, Mode
from invariants.contracts.grpo import GRPO, GRPOBatch, GRPOLoss, GRPOSetting
from invariants.contracts.logs import (
    Column,
    Delta,
    FrozenLog,
    LogEvent,
    LoggedRun,
    Logs,
    LogSetting,
    LogsFactory,
    ReadLog,
    ResultRun,
    Series,
)
from invariants.contracts.routed_step import LOGGED, StepFactory, StepFunction, Stepped, Stepper, StepSetting
from invariants.contracts.split import SplitFunction, SplitSetting, label_of
from invariants.contracts.train import (
    ContrastivePair,
    Extraction,
    FirstStep,
    Refresh,
    TrainFunction,
    TrainRequest,
    TrainResult,
    TrainSetting,
)

Capability = Literal["split", "routed_step", "adapter", "grpo", "extraction", "train", "grade", "logs"]
Setting = (
    SplitSetting
    | StepSetting
    | AdapterSetting
    | GRPOSetting
    | ExtractionSetting
    | TrainSetting
    | GradeSetting
    | LogSetting
)

SETTINGS: dict[Capability, type[Setting]] = {
    "split": SplitSetting, "routed_step": StepSetting, "adapter": AdapterSetting,
    "grpo": GRPOSetting, "extraction": ExtractionSetting, "train": TrainSetting, "grade": GradeSetting,
    "logs": LogSetting,
}  # fmt: skip
"""The kind of setting that each capability has; made without arguments, it is the default."""

__all__ = [
    "GRPO",
    "LOGGED",
    "SETTINGS",
    "AdaptedLinear",
    "AdapterFactory",
    "AdapterSetting",
    "Capability",
    "Claims",
    "Column",
    "ContrastivePair",
    "ContrastiveProblem",
    "Delta",
    "Extraction",
    "ExtractionFunction",
    "ExtractionSetting",
    "FirstStep",
    "Floor",
    "FrozenLog",
    "GRPOBatch",
    "GRPOLoss",
    "GRPOSetting",
    "GradeFunction",
    "GradeRequest",
    "GradeSetting",
    "Graded",
    "LogEvent",
    "LogSetting",
    "LoggedRun",
    "Logs",
    "LogsFactory",
    "Mode",
    "ReadLog",
    "Refresh",
    "ResultRun",
    "Series",
    "Setting",
    "SplitFunction",
    "SplitSetting",
    "StepFactory",
    "StepFunction",
    "StepSetting",
    "Stepped",
    "Stepper",
    "TrainFunction",
    "TrainRequest",
    "TrainResult",
    "TrainSetting",
    "label_of",
]
