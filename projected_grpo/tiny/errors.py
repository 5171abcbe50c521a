"""What can go wrong in a tiny testbed."""

from projected_grpo.errors import ProjectedGRPOError


class TestbedError(ProjectedGRPOError):
    """Base of what a testbed refuses."""

    __test__ = False  # the name begins as those that pytest collects


class UnknownModeError(TestbedError):
    """A loophole mode that no prompt of the testbed can name."""


class CheckpointError(TestbedError):
    """A warmed-up model on disk is not what was written there."""
