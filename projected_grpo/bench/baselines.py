"""The straightforward code that the package is measured beside: what a paper's repository has, without its mistakes.

A loop over modules with a handful of kernels for each, and numbers read back one at a time; two backward passes for two
sources of rollouts. It is shipped with the package, because `projected-grpo bench` measures against it wherever it is
installed. None of it is used for anything else.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

Parts = tuple[dict[str, Tensor], dict[str, Tensor]]  # kept and removed, module → (r,)


@torch.no_grad()
def split_by_loop(gradients: Mapping[str, Tensor], basis: Mapping[str, Tensor]) -> Parts:
    """kept and removed of every module, one module at a time; one-sided, without an overshoot."""
    kept, removed = {}, {}
    for name, g in gradients.items():
        V = basis[name]
        removed[name] = V.T @ torch.relu(V @ g)
        kept[name] = g - removed[name]
    return kept, removed


@torch.no_grad()
def split_by_loop_with_statistics(
    gradients: Mapping[str, Tensor], basis: Mapping[str, Tensor]
) -> tuple[Parts, dict[str, float]]:
    """The same, and the statistics that `split_statistics` has, each read back from the device when it is there."""
    kept, removed = {}, {}
    squares = dict.fromkeys(("norm", "norm_kept", "norm_removed", "pre", "post"), 0.0)
    fired = 0
    for name, g in gradients.items():
        V = basis[name]
        c = V @ g
        removed[name] = V.T @ torch.relu(c)
        kept[name] = g - removed[name]
        squares["norm"] += g.square().sum().item()
        squares["norm_kept"] += kept[name].square().sum().item()
        squares["norm_removed"] += removed[name].square().sum().item()
        squares["pre"] += torch.relu(c).square().sum().item()
        squares["post"] += torch.relu(V @ kept[name]).square().sum().item()
        fired += int((c > 0).sum().item())
    norms = {name: math.sqrt(squares[name]) for name in ("norm", "norm_kept", "norm_removed")}
    shares = {
        "cos_pre": math.sqrt(squares["pre"] / squares["norm"]) if squares["norm"] else 0.0,
        "cos_post": math.sqrt(squares["post"] / squares["norm_kept"]) if squares["norm_kept"] else 0.0,
    }
    return (kept, removed), {**norms, **shares, "fired": fired}
