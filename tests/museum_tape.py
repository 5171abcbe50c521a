"""Four steps of noise over two modules, which faults of the museum are told of on."""

import torch

from invariants.cases import orthonormal_rows
from reference import Tape

MODULES = {"a": (12, 3), "without a basis": (5, 0)}  # name -> (r, k)


def tape():
    """Anew for every subject, since a broken one may write into what it is given."""
    draw = torch.Generator().manual_seed(3)
    return Tape(
        gradients={name: torch.randn(4, r, dtype=torch.float64, generator=draw) for name, (r, _) in MODULES.items()},
        basis={name: orthonormal_rows(k, r, draw) for name, (r, k) in MODULES.items()},
        start={name: torch.zeros(r, dtype=torch.float64) for name, (r, _) in MODULES.items()},
    )
