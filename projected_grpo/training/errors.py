"""What the trainer refuses."""

from projected_grpo.errors import ProjectedGRPOError


class TrainingError(ProjectedGRPOError):
    """A run cannot be made, or not gone on with."""


class ModelError(TrainingError):
    """A model cannot be loaded, or not be trained here."""


class TaskError(TrainingError):
    """A task has nothing to ask, or the model cannot be asked."""


class PoolError(TrainingError):
    """A pool of rollouts cannot be read, or gives nothing to this run."""


class PairsError(TrainingError):
    """Contrastive pairs cannot be read, or there are too few."""


class RunExistsError(TrainingError):
    """The folder of a new run holds another one."""


class RunBusyError(TrainingError):
    """Another process is at work in the folder of a run."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be read, or belongs to another run."""
