"""What a RoutedOptimizer saves beyond its base's state, and the checks before any of it is loaded.

Everything here is tensors, numbers, strings and dicts, so that torch.load(weights_only=True) reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from projected_grpo.basis import PRECISIONS, Basis
from projected_grpo.binding import check_fit
from projected_grpo.errors import BasisError, BindingError, StateMismatchError
from projected_grpo.routing import Routing
from projected_grpo.vectors import VectorPair

KEY = "routing"
VERSION = 1
START_AGAIN = "load it into an optimizer that is built as the saved one was"


@dataclass(frozen=True)
class Progress:
    """Where training stands, besides the vectors and the base's state; module → (r,)."""

    start: dict[str, Tensor]  # the deployed vectors before the first step
    point: dict[str, Tensor]  # the base optimizer's own point; empty where that is the deployed vector itself


def packed(routing: Routing, names: list[str], basis: Basis, progress: Progress | None) -> dict[str, Any]:
    """The routing part of a state dict."""
    return {
        "version": VERSION,
        "settings": routing.settings(),
        "names": names,
        "basis": {
            "rows": dict(basis),
            "fingerprints": dict(basis.fingerprints),
            "precision": str(basis.precision),
        },
        "progress": None if progress is None else {"start": dict(progress.start), "point": dict(progress.point)},
    }


def unpacked(
    state: Mapping[str, Any],
    routing: Routing,
    vectors: Mapping[str, VectorPair],
    base: Optimizer,
    fingerprints: Mapping[str, str] | None,
) -> tuple[Basis, Progress | None]:
    """The basis and the progress of a state dict, on the devices of the vectors, after every check; changes nothing.

    Raises:
        StateMismatchError: no routing state, another version, other settings, names, shapes or parameter groups.
    """
    saved = state.get(KEY)
    if not isinstance(saved, Mapping):
        raise StateMismatchError(
            "The state has no routing part, so a plain optimizer wrote it; load it into the base optimizer instead, "
            "before wrapping it."
        )
    if saved.get("version") != VERSION:
        raise StateMismatchError(f"The state has version {saved.get('version')}, not {VERSION}; {START_AGAIN}.")
    _check_settings(saved["settings"], routing.settings())
    if set(saved["names"]) != set(vectors):
        differing = sorted(set(saved["names"]) ^ set(vectors))
        raise StateMismatchError(f"{differing[0]} is only on one side of state and optimizer; {START_AGAIN}.")
    _check_groups(state["param_groups"], base.param_groups)
    device = next(iter(vectors.values())).deployed.device
    try:
        rows = {name: V.to(device) for name, V in saved["basis"]["rows"].items()}
        precision = PRECISIONS[saved["basis"]["precision"]]
        basis = Basis(rows, fingerprints=saved["basis"]["fingerprints"], precision=precision)
        check_fit(vectors, basis, fingerprints)
    except (BasisError, BindingError) as error:
        raise StateMismatchError(f"The saved basis does not fit the vectors: {error}") from error
    if saved["progress"] is None:
        return basis, None
    parts = {part: _placed(part, saved["progress"][part], vectors) for part in ("start", "point")}
    return basis, Progress(**parts)


def _check_settings(saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    for name, value in present.items():
        if saved.get(name) != value:
            raise StateMismatchError(
                f"The state was saved with {name}={saved.get(name)!r} and this optimizer has {value!r}; {START_AGAIN}."
            )


def _check_groups(saved: list[dict[str, Any]], present: list[dict[str, Any]]) -> None:
    sizes = [len(group["params"]) for group in saved], [len(group["params"]) for group in present]
    if sizes[0] != sizes[1]:
        raise StateMismatchError(
            f"The state has parameter groups of {sizes[0]} tensors and the base optimizer of {sizes[1]}; {START_AGAIN}."
        )


def _placed(part: str, saved: Mapping[str, Tensor], vectors: Mapping[str, VectorPair]) -> dict[str, Tensor]:
    placed = {}
    for name, value in saved.items():
        deployed = vectors[name].deployed if name in vectors else None
        if deployed is None or (value.shape, value.dtype) != (deployed.shape, deployed.dtype):
            wanted = "no such vector" if deployed is None else f"{tuple(deployed.shape)} of {deployed.dtype}"
            raise StateMismatchError(
                f"{name}: the saved {part} is {tuple(value.shape)} of {value.dtype}, the model has {wanted}; "
                f"{START_AGAIN}."
            )
        placed[name] = value.to(deployed.device, copy=True, memory_format=torch.preserve_format)
    return placed
