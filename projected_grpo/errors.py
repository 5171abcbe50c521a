"""Every error that this package raises on purpose, under one base class.

Each message is one sentence that names the thing (module, shape, value) and the mend.
"""


class ProjectedGRPOError(ValueError):
    """Base of every error raised on purpose; catching it catches all bad input."""


class BasisError(ProjectedGRPOError):
    """A hack basis cannot be used as it is."""


class BasisShapeError(BasisError):
    """Rows of a basis are not a (k, r) matrix of floating-point numbers."""


class NonFiniteBasisError(BasisError):
    """A basis holds NaN or infinity."""


class NotOrthonormalError(BasisError):
    """Rows of a basis are neither orthonormal nor zero."""


class EmptyBasisError(BasisError):
    """A basis has no row that isn't zero, in any module, so it would route nothing."""


class MixedBasisError(BasisError):
    """Rows of one basis differ in dtype or device."""


class StaleBasisError(BasisError):
    """A basis lives in the coordinates of another decomposition than the model's."""


class BasisFileError(BasisError):
    """A file cannot be read as a basis; the base of the three below."""


class MissingBasisFileError(BasisFileError, FileNotFoundError):
    """There is no file at the path of a basis."""


class ForeignBasisFileError(BasisFileError):
    """A readable file that is no basis of this version."""


class TruncatedBasisFileError(BasisFileError):
    """The file of a basis was cut off or changed after it was written."""


class SettingError(ProjectedGRPOError):
    """A setting has a value that means nothing: an unknown name, or a number out of range."""


class ArgumentTypeError(ProjectedGRPOError, TypeError):
    """An argument is of a type that cannot be meant."""


class UnsupportedCombinationError(ProjectedGRPOError):
    """Settings that are fine one by one and meaningless together."""


class BindingError(ProjectedGRPOError):
    """A basis and the vectors of a model do not fit; the base of the five below."""


class UnmatchedNamesError(BindingError):
    """Names in a basis that match no adapted module."""


class ShapeMismatchError(BindingError):
    """A vector and its rows of the basis differ in length."""


class DTypeMismatchError(BindingError):
    """A vector and its rows of the basis differ in dtype."""


class DeviceMismatchError(BindingError):
    """A vector and its rows of the basis are on different devices."""


class SharedVectorError(BindingError):
    """One parameter is named as two vectors, so it would be stepped and split twice."""


class VectorNotOptimizedError(ProjectedGRPOError):
    """The base optimizer does not hold a vector that has to be trained."""


class ClosureOptimizerError(ProjectedGRPOError):
    """The base optimizer re-evaluates the loss inside its step, where no split can reach."""


class UnmeasurableOptimizerError(ProjectedGRPOError):
    """An optimizer could not be run on probe vectors, so what it guarantees is unknown."""


class NonFiniteGradientError(ProjectedGRPOError):
    """A gradient holds NaN or infinity, or the norm of all of them does; nothing was changed."""


class NonFiniteLogitsError(ProjectedGRPOError):
    """Logits are NaN or infinite, so there is no token to draw."""


class NonFiniteRewardError(ProjectedGRPOError):
    """A reward is NaN or infinite, so no advantage of its group means anything."""


class ContrastivePairError(ProjectedGRPOError):
    """A pair of completions cannot be differentiated: it is no pair of losses, or a loss is no scalar with a graph."""


class FrozenVectorError(ProjectedGRPOError):
    """A deployed vector does not require a gradient, so no completion has one in it."""


class LiveQuarantineError(ProjectedGRPOError):
    """A quarantine isn't zero where the gradients of the model as deployed are needed, and nothing ablates it."""


class NonFiniteVectorError(ProjectedGRPOError):
    """A trained vector holds NaN or infinity; nothing was changed."""


class OutsideWriteError(ProjectedGRPOError):
    """Something other than the optimizer changed a vector that its next step would overwrite; nothing was changed."""


class InterruptedStepError(ProjectedGRPOError):
    """An earlier step failed halfway, so the base optimizer's state belongs to no step."""


class StateMismatchError(ProjectedGRPOError):
    """A saved optimizer state belongs to other settings, names, shapes or order; nothing was changed."""


class NotCopyableError(ProjectedGRPOError, TypeError):
    """An optimizer was to be copied or pickled, which would part it from the parameters that it steps."""


class UsageError(ProjectedGRPOError):
    """Options of the command line that do not go together, or that were given something else than they take."""
