"""Loading the suite: `invariants` and `reference` are plain words, and must be the ones that came with this package."""

import importlib.util
import sys
from pathlib import Path

import projected_grpo
from projected_grpo.errors import ProjectedGRPOError


class ShadowedPackageError(ProjectedGRPOError):
    """Another module of the same name hides one of the packages that are installed with this one."""


def ensure_own_suite() -> None:
    """Looks where `invariants` and `reference` would be imported from, without importing them.

    Raises:
        ShadowedPackageError: one of them is not the sibling of this package.
    """
    home = Path(projected_grpo.__file__).resolve().parent.parent
    for name in ("reference", "invariants"):
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ShadowedPackageError(
                f"The package {name!r} is missing from {home}, where it came with projected_grpo; install that again."
            )
        origin = Path(spec.origin or next(iter(spec.submodule_search_locations or ["?"]))).resolve()
        if origin.parent.parent != home:
            raise ShadowedPackageError(
                f"{origin} shadows the package {name!r} that comes with projected_grpo in {home}; "
                f"run from another directory or rename it."
            )


def is_bad_input(error: Exception) -> bool:
    """Whether an error speaks of what the user handed in; anything else is a bug, and keeps its traceback."""
    kinds: list[type[Exception]] = [ProjectedGRPOError, OSError]
    # A module that was never imported cannot have raised; importing it here might import what shadows it.
    for module, name in (("invariants.errors", "SuiteError"), ("reference.tape", "TapeError")):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return isinstance(error, tuple(kinds))
