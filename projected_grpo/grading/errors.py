"""What grading refuses, one class for each kind of mistake."""

from projected_grpo.errors import ProjectedGRPOError


class GradingError(ProjectedGRPOError):
    """A submission cannot be graded, for a reason that is not its program's."""


class IsolationUnavailableError(GradingError):
    """This system does not let a process have the namespaces that hostile programs are shut into."""


class NoCasesError(GradingError):
    """A submission has no case, so that every program would solve it."""


class ExpectedValueError(GradingError):
    """An expected value is not of the plain types that can be compared."""


class WorkerError(GradingError):
    """Workers die as soon as they are started."""
