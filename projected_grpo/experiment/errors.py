"""What experiments refuse."""

from projected_grpo.errors import ProjectedGRPOError


class ExperimentError(ProjectedGRPOError):
    """An experiment cannot be carried out as it was asked for, or a run of it has failed."""
