"""What a script plays recordings back with; copied into it, so that it uses torch and the script's own names alone."""

import importlib
import sys
from typing import Any

import torch
from torch import Tensor

CALLS: list[dict[str, Any]] = []
LOOPS: list[dict[str, Any]] = []
HANDED_OUT: dict[int, tuple[Tensor, Tensor]] = {}


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values; NaN is NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def recorded_split(g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """What the subject returned, and what it did to its arguments and to what it had handed out before."""
    calls = [number for number, call in enumerate(CALLS) if same(g, call["g"]) and same(V, call["V"])]
    number = next((n for n in calls if n not in HANDED_OUT), calls[-1])
    call = CALLS[number]
    HANDED_OUT[number] = call["kept"].clone(), call["removed"].clone()
    g.copy_(call.get("g afterwards", g))
    V.copy_(call.get("V afterwards", V))
    for earlier, values in call.get("rewrites", {}).items():
        for tensor, value in zip(HANDED_OUT[earlier], values, strict=True):
            tensor.copy_(value)
    return HANDED_OUT[number]


class RecordedLoop:
    """Gives back, step by step, what one of the subject's loops showed."""

    def __init__(self, steps: list[Any]) -> None:
        self.steps = iter(steps)

    def step(self, g: dict[str, Tensor]) -> Any:
        """What the loop showed after this step; raises where it raised."""
        shown = next(self.steps)
        if isinstance(shown, str):
            raise RuntimeError(shown)
        return shown

    def nothing(self, *_: object) -> None:
        """What was saved, restored, accumulated or refreshed shows in the steps that follow."""

    state_dict = load_state_dict = accumulate = refresh = nothing


def recorded_loop(start: Any, basis: Any, *, intervention: str, max_norm: float | None) -> RecordedLoop:
    """The next of the subject's loops."""
    loop = LOOPS.pop(0)
    assert (intervention, max_norm) == (loop["intervention"], loop["max_norm"]), (
        "this is not the loop that was recorded"
    )
    return RecordedLoop(loop["steps"])


def live(named: str) -> Any:
    """The function that `module:function` names, as it is now."""
    sys.path.insert(0, "")
    module, _, function = named.partition(":")
    return getattr(importlib.import_module(module), function)


def judged(id: str, compared: dict[str, Tensor], label: str, entry: int, allowed: float) -> None:
    """Prints the entry that decided in the report, and fails if it is more than what is allowed."""
    observed = float(compared[label].flatten()[entry].double().abs())
    print(f"{id}: {label}, entry {entry}: observed {observed:.6g}, allowed {allowed:.6g}")
    if not observed <= allowed:  # NaN is never allowed
        raise AssertionError(f"{id} is violated: {label} is {observed:.6g}, and at most {allowed:.6g} is allowed")


def zeros_like_all(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Zeros of the same shapes, float64."""
    return {name: torch.zeros_like(t, dtype=torch.float64) for name, t in tensors.items()}
