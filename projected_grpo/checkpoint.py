"""What a RoutedOptimizer saves beyond its base's state, and the checks before any of it is loaded.

Everything here is tensors, numbers, strings, lists and dicts, so that torch.load(weights_only=True) reads it.
"""

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from projected_grpo.basis import PRECISIONS, Basis
from projected_grpo.binding import check_fit
from projected_grpo.errors import BasisError, BindingError, StateMismatchError
from projected_grpo.norms import working_dtype
from projected_grpo.progress import Progress, Values
from projected_grpo.routing import Routing
from projected_grpo.vectors import VectorPair

KEY = "routing"
VERSION = 2  # 1 had neither a memory of the gate nor a share that is retained
START_AGAIN = "load it into an optimizer that is built as the saved one was"
PARTS = tuple(field.name for field in fields(Progress))


def packed(
    routing: Routing,
    vectors: Mapping[str, VectorPair],
    base: Optimizer,
    basis: Basis,
    progress: Mapping[str, Values] | None,
) -> dict[str, Any]:
    """The routing part of a state dict; progress by part and name, as `Progress.named` has it."""
    return {
        "version": VERSION,
        "settings": routing.settings(),
        "layout": layout(vectors, base),
        "basis": {
            "rows": dict(basis),
            "fingerprints": dict(basis.fingerprints),
            "precision": str(basis.precision),
        },
        "progress": None if progress is None else {part: dict(progress[part]) for part in PARTS},
    }


def layout(vectors: Mapping[str, VectorPair], base: Optimizer) -> list[list[str]]:
    """What each place of each parameter group holds, in words.

    torch keys an optimizer's state by place, so a state that is loaded into another order gives momenta to the wrong
    vectors. Parameters that are not routed have no name here; two of them that have the same shape look alike.
    """
    named = {
        id(vector): f"the {role} vector of {name}"
        for name, pair in vectors.items()
        for role, vector in zip(VectorPair._fields, pair, strict=True)
    }
    return [
        [f"{named.get(id(p), 'a parameter that is not routed')} {tuple(p.shape)}" for p in group["params"]]
        for group in base.param_groups
    ]


def unpacked(
    state: Mapping[str, Any],
    routing: Routing,
    vectors: Mapping[str, VectorPair],
    base: Optimizer,
    fingerprints: Mapping[str, str] | None,
) -> tuple[Basis, dict[str, Values] | None]:
    """The basis and the progress of a state dict, as `packed` took them and on the devices of the vectors, after every
    check; changes nothing.

    Raises:
        StateMismatchError: no routing state, another version, something missing, or other settings, names, shapes,
            parameter groups or order of parameters.
    """
    saved = state.get(KEY)
    if not isinstance(saved, Mapping):
        raise StateMismatchError(
            "The state has no routing part, so a plain optimizer wrote it; load it into the base optimizer instead, "
            "before wrapping it."
        )
    saved = _upgraded(saved)
    if saved.get("version") != VERSION:
        raise StateMismatchError(f"The state has version {saved.get('version')}, not {VERSION}; {START_AGAIN}.")
    _check_present("state", state, ("state", "param_groups"))
    _check_present("routing part", saved, ("settings", "layout", "basis", "progress"))
    _check_settings(saved["settings"], routing.settings())
    _check_layout(saved["layout"], layout(vectors, base))
    _check_groups(state["param_groups"], base.param_groups)
    basis = _basis(saved["basis"], vectors, fingerprints)
    if saved["progress"] is None:
        return basis, None
    _check_present("progress", saved["progress"], PARTS)
    memory = _memory(saved["progress"]["memory"], vectors, basis if routing.rule.remembers else {})
    elsewhere = list(vectors) if routing.moves_the_point else []
    wanted = {
        "start": list(vectors),
        "point": elsewhere,
        "deployed": elsewhere,
        "quarantine": elsewhere if routing.intervention == "route" else [],
    }
    parts = {part: _placed(part, saved["progress"][part], vectors, names) for part, names in wanted.items()}
    return basis, {**parts, "memory": memory}


def _upgraded(saved: Mapping[str, Any]) -> Mapping[str, Any]:
    """A routing part of version 1 as this version would have written it; any other as it is."""
    settings, progress = saved.get("settings"), saved.get("progress")
    if saved.get("version") != 1 or not isinstance(settings, Mapping):
        return saved
    if isinstance(progress, Mapping):
        progress = {**progress, "memory": {}}
    return {**saved, "version": VERSION, "settings": {**settings, "retained": 1.0}, "progress": progress}


def _check_present(where: str, saved: Any, keys: Collection[str]) -> None:
    if not isinstance(saved, Mapping):
        raise StateMismatchError(f"The {where} is a {type(saved).__name__} and no dict; save the state again.")
    missing = [key for key in keys if key not in saved]
    if missing:
        raise StateMismatchError(f"The {where} has no {missing[0]!r}; save the state again, and load all of it.")


def _check_settings(saved: Any, present: Mapping[str, Any]) -> None:
    _check_present("settings", saved, present)
    for name, value in present.items():
        if saved[name] != value:
            raise StateMismatchError(
                f"The state was saved with {name}={saved[name]!r} and this optimizer has {value!r}; {START_AGAIN}."
            )


def _check_layout(saved: Any, present: list[list[str]]) -> None:
    try:
        theirs, ours = _places(saved), _places(present)
    except TypeError:
        raise StateMismatchError("The layout is no list of lists; save the state again.") from None
    for group, place in sorted(theirs.keys() | ours.keys()):
        sides = [side.get((group, place), "nothing") for side in (theirs, ours)]
        if sides[0] != sides[1]:
            raise StateMismatchError(
                f"At place {place} of parameter group {group} the state has {sides[0]} and the base optimizer "
                f"{sides[1]}; {START_AGAIN}, its parameters in the same order."
            )


def _places(layout: list[list[str]]) -> dict[tuple[int, int], str]:
    return {(i, j): what for i, group in enumerate(layout) for j, what in enumerate(group)}


def _check_groups(saved: Any, present: list[dict[str, Any]]) -> None:
    try:
        sizes = [len(group["params"]) for group in saved]
    except (KeyError, TypeError):
        raise StateMismatchError("Its param_groups are no list of parameter groups; save the state again.") from None
    expected = [len(group["params"]) for group in present]
    if sizes != expected:
        raise StateMismatchError(
            f"The state has parameter groups of {sizes} tensors and the base optimizer of {expected}; {START_AGAIN}."
        )


def _basis(saved: Any, vectors: Mapping[str, VectorPair], fingerprints: Mapping[str, str] | None) -> Basis:
    _check_present("saved basis", saved, ("rows", "fingerprints", "precision"))
    if saved["precision"] not in PRECISIONS:
        raise StateMismatchError(f"The saved basis is of precision {saved['precision']!r}; save the state again.")
    device = next(iter(vectors.values())).deployed.device
    try:
        rows = Basis(saved["rows"], fingerprints=saved["fingerprints"], precision=PRECISIONS[saved["precision"]])
        basis = rows.to(device=device)
        check_fit(vectors, basis, fingerprints)
    except (BasisError, BindingError) as error:
        raise StateMismatchError(f"The saved basis does not fit the vectors: {error}") from error
    return basis


def _memory(saved: Any, vectors: Mapping[str, VectorPair], basis: Mapping[str, Tensor]) -> Values:
    """Copies on the devices of the vectors: one value for each axis of a module, or nothing."""
    _check_present("saved memory", saved, ())
    placed = {}
    for name, value in saved.items():
        axes, dtype = len(basis.get(name, ())), working_dtype(vectors[name].deployed.dtype) if name in vectors else None
        if not isinstance(value, Tensor) or not axes or (value.shape, value.dtype) != ((axes,), dtype):
            raise StateMismatchError(
                f"{name}: the saved memory of the gate does not fit the {axes} axes of its basis; {START_AGAIN}."
            )
        placed[name] = value.to(vectors[name].deployed.device, copy=True)
    return placed


def _placed(part: str, saved: Any, vectors: Mapping[str, VectorPair], wanted: Collection[str]) -> Values:
    """Copies on the devices of the vectors, in their order."""
    _check_present(f"saved {part}", saved, wanted)
    stray = [name for name in saved if name not in wanted]
    if stray:
        raise StateMismatchError(f"{stray[0]}: the saved {part} has it and this optimizer has not; {START_AGAIN}.")
    placed = {}
    for name in wanted:
        value, deployed = saved[name], vectors[name].deployed
        if not isinstance(value, Tensor) or (value.shape, value.dtype) != (deployed.shape, deployed.dtype):
            found = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise StateMismatchError(
                f"{name}: the saved {part} is {found}, the model has {tuple(deployed.shape)} of {deployed.dtype}; "
                f"{START_AGAIN}."
            )
        placed[name] = value.to(deployed.device, copy=True, memory_format=torch.preserve_format)
    return placed
