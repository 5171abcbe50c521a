"""One hypothesis profile, one thread, and shapes in signatures that are really checked."""

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Before the packages are imported: beartype then checks every annotated shape and type of theirs in every test.
install_import_hook(["projected_grpo"], "beartype.beartype")

settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")

torch.set_num_threads(1)

from invariants.cases import orthonormal_rows  # noqa: E402  (after the hook above)
from reference import Tape  # noqa: E402  (the same)


@pytest.fixture(scope="session")
def small_tape() -> Tape:
    """Three steps of two modules, one without a basis: for tests that are not about real gradients."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"first": (12, 3), "second": (8, 0)}
    return Tape(
        gradients={name: torch.randn(3, r, dtype=torch.float64, generator=draw) for name, (r, _) in shapes.items()},
        basis={name: orthonormal_rows(k, r, draw) for name, (r, k) in shapes.items()},
        start={name: torch.zeros(r, dtype=torch.float64) for name, (r, _) in shapes.items()},
    )
