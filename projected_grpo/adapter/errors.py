"""What the adapter refuses, one class for each kind of mistake."""

from projected_grpo.errors import ProjectedGRPOError


class AdapterConfigError(ProjectedGRPOError):
    """An option of the adapter's configuration has a value that it cannot have."""


class NoMatchingModulesError(ProjectedGRPOError):
    """`target_modules` matches no module of the base model."""


class UnsupportedModuleError(ProjectedGRPOError):
    """A module that was asked for cannot be adapted: it is no plain Linear, or shares its weight with another one."""


class FingerprintMismatchError(ProjectedGRPOError):
    """The base model is not the one whose singular basis the adapter was trained in."""


class AdapterStateError(ProjectedGRPOError):
    """The adapter is in a state that this call cannot work with (merged, ablated, already there, not there)."""


class OutputExistsError(ProjectedGRPOError):
    """The directory to write to is already in use."""
