"""Training: GRPO in which the part of the gradient along a hack basis is left alone, erased, or routed.

from projected_grpo.training import PRESETS, Trainer

with Trainer.begin(PRESETS["tiny"]) as trainer:
    report = trainer.run()
report.rates["deployed"].hack
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from projected_grpo.training.config import (
    BasisConfig,
    EvaluationConfig,
    GRPOConfig,
    ModelConfig,
    RoutingConfig,
    RunConfig,
    TaskConfig,
    TeacherConfig,
    TrainConfig,
)
from projected_grpo.training.errors import (
    CheckpointError,
    ModelError,
    PairsError,
    PoolError,
    RunBusyError,
    RunExistsError,
    TaskError,
    TrainingError,
)
from projected_grpo.training.presets import PRESETS

if TYPE_CHECKING:
    from projected_grpo.training.evaluation import Rates
    from projected_grpo.training.report import Report
    from projected_grpo.training.trainer import Refreshed, Seen, Trainer

__all__ = [
    "PRESETS",
    "BasisConfig",
    "CheckpointError",
    "EvaluationConfig",
    "GRPOConfig",
    "ModelConfig",
    "ModelError",
    "PairsError",
    "PoolError",
    "Rates",
    "Refreshed",
    "Report",
    "RoutingConfig",
    "RunBusyError",
    "RunConfig",
    "RunExistsError",
    "Seen",
    "TaskConfig",
    "TaskError",
    "TeacherConfig",
    "TrainConfig",
    "Trainer",
    "TrainingError",
]

_ON_DEMAND = {
    "Rates": "evaluation",
    "Report": "report",
    "Refreshed": "trainer",
    "Seen": "trainer",
    "Trainer": "trainer",
}


def __getattr__(name: str) -> Any:
    """What needs transformers and PEFT is imported when it is asked for, so that options can be read without them."""
    if name in _ON_DEMAND:
        return getattr(import_module(f"projected_grpo.training.{_ON_DEMAND[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
