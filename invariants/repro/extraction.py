"""extraction.*, for scripts: recorded axes beside the singular vectors of the pair differences D, known in closed form.

The loss of a completion is slope . x + x . diag(bend) x / 2, so its gradient at x is slope + bend x.
"""

from typing import Any

import torch
from torch import Tensor

from invariants.repro.snippet import IMPOSSIBLE, Residuals, snippet

IMPOSSIBLE["extraction.leaves_no_trace"] = (
    "it is the state of the caller's parameters that gives the subject away, not anything that it returned"
)
Modules = dict[str, dict[str, Tensor]]
Runs = list[dict[str, Tensor]]
TURN = "2 |E| / (gap - |E|), the angle by which rounding E in D may turn an axis; where that decides nothing"


def differences(module: dict[str, Tensor]) -> Tensor:
    """D (pairs, r): gradients of the hack completions less those of the clean ones, as deployed."""
    hack, clean = (module["slopes"].double() + module["bends"].double() * module["deployed"].double()).unbind()
    return hack - clean


def axes(module: dict[str, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Singular values, and the first k right singular vectors on the side of most pairs; a tie is for the sum."""
    D = differences(module)
    _, S, Vh = torch.linalg.svd(D, full_matrices=False)
    rank = int((4 * max(D.shape) * torch.finfo(torch.float64).eps * S[0] < S).sum())
    V, projection = Vh[: min(k, rank)], D @ Vh[: min(k, rank)].T
    votes, total = projection.sign().sum(dim=0), projection.sum(dim=0)
    return S[: min(k, rank)], V * torch.where(votes != 0, votes.sign(), total.sign())[:, None]


def apart(got: dict[str, Tensor], expected: dict[str, Tensor]) -> Residuals:
    """The distances of axes, and of their numbers."""
    compared: Residuals = {}
    for name, V in expected.items():
        compared[f"number of axes of {name!r}"] = torch.tensor(float(abs(len(got[name]) - len(V))))
        for i, (mine, theirs) in enumerate(zip(got[name], V, strict=False)):
            compared[f"|difference| of axis {i} of {name!r}"] = (mine - theirs).norm()
    return compared


@snippet("extraction.orthonormal", allows="2 u + u^2 and the decomposition's p u; axes beyond k: 0")
def orthonormal(runs: Runs, k: int) -> Residuals:
    """V V^T = I, with at most k axes."""
    compared: Residuals = {}
    for name, V in runs[0].items():
        compared[f"axes of {name!r} beyond k"] = torch.tensor(float(max(0, len(V) - k)))
        compared[f"V V^T - I of {name!r}"] = V @ V.T - torch.eye(len(V), dtype=torch.float64)
    return compared


@snippet("extraction.span", allows="|E| / (gap - |E|) with E the rounding of D (Wedin); number of axes: 0")
def span(runs: Runs, modules: Modules, k: int) -> Residuals:
    """The axes span what the pairs differ in most."""
    compared: Residuals = {}
    for name, module in modules.items():
        _, exact = axes(module, k)
        V = runs[0][name]
        compared[f"number of axes of {name!r}"] = torch.tensor(float(abs(len(V) - len(exact))))
        compared[f"|axis outside of the span| of {name!r}"] = (V - (V @ exact.T) @ exact).norm(dim=1)
    return compared


@snippet("extraction.orientation", allows="0: no majority against an axis that rounding could not turn")
def orientation(runs: Runs, modules: Modules) -> Residuals:
    """On every axis most pairs lie on the positive side."""
    compared: Residuals = {}
    for name, V in runs[0].items():
        against = -(differences(modules[name]) @ V.T).sign().sum(dim=0)
        compared[f"majority against the axes of {name!r}"] = against.clamp(min=0)
    return compared


@snippet("extraction.tie", allows="the rounding of the projections")
def tie(runs: Runs, modules: Modules) -> Residuals:
    """Where the vote is a tie, the summed projection is positive."""
    compared: Residuals = {}
    for name, V in runs[0].items():
        projection = differences(modules[name]) @ V.T
        tied = projection.sign().sum(dim=0) == 0
        compared[f"summed projection of tied axes of {name!r}"] = projection.sum(dim=0)[tied].clamp(max=0)
    return compared


@snippet("extraction.permutation", allows=f"twice {TURN}")
def permutation(runs: Runs) -> Residuals:
    """The same pairs, the first of them last, give the same axes."""
    return apart(runs[0], runs[1])


@snippet("extraction.antisymmetry", allows=f"twice {TURN}")
def antisymmetry(runs: Runs) -> Residuals:
    """Hack and clean exchanged give the same axes, flipped."""
    return apart({name: -V for name, V in runs[0].items()}, runs[1])


@snippet("extraction.noise_floor", allows="0 axes more or less than reach the floor")
def noise_floor(runs: Runs, modules: Modules, k: int, floors: list[Any]) -> Residuals:
    """An axis is kept exactly if its singular value reaches the floor."""
    compared: Residuals = {}
    sizes = {name: axes(module, k)[0] for name, module in modules.items()}
    loudest = max(float(torch.linalg.matrix_norm(differences(m), ord=2)) for m in modules.values())
    for (kind, floor), got in zip(floors, runs, strict=True):
        for name, S in sizes.items():
            largest = loudest if kind == "global" else float(S[0]) if len(S) else 0.0
            kept = int((floor * largest <= S).sum())
            label = f"axes of {name!r} at a {kind} floor of {floor:.2f}, against those that reach it"
            compared[label] = torch.tensor(float(len(got[name]) - kept))
    return compared


@snippet("extraction.isolation", allows=TURN)
def isolation(runs: Runs, modules: Modules, k: int) -> Residuals:
    """The axes are those of each completion's gradient alone."""
    return apart(runs[0], {name: axes(module, k)[1] for name, module in modules.items()})


@snippet("extraction.ablates_quarantine", allows=f"twice {TURN}")
def ablates_quarantine(runs: Runs) -> Residuals:
    """A quarantine with values in it changes nothing."""
    return apart(runs[0], runs[1])
