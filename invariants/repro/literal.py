"""Values as Python source that gives the same bits back."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

WIDTH = 118


class Code(str):
    """Source that stands for itself: the name of a tensor that was written before."""


def literal(value: Any) -> str:
    """Source of a tensor, a number, None, a string, or a mapping or sequence of these.

    A float is written as the shortest decimal that rounds to the same float64; every narrower dtype is a subset of
    it, so that torch.tensor gives back the same value. `inf` and `nan` are names that a script defines.
    """
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, Tensor):
        return _tensor(value.detach())
    if isinstance(value, Mapping):
        return _block("{", [f"{key!r}: {literal(item)}" for key, item in value.items()], "}")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _block("[", [literal(item) for item in value], "]")
    return repr(value)


def _tensor(t: Tensor) -> str:
    dtype = "" if t.dtype is torch.float32 else f", dtype={t.dtype}"
    if t.numel() == 0:
        return f"torch.zeros({tuple(t.shape)}{dtype})"
    values = t.double().tolist() if t.is_floating_point() else t.tolist()
    one_line = f"torch.tensor({values}{dtype})"
    if len(one_line) <= WIDTH:
        return one_line
    return f"torch.tensor(\n{textwrap.indent(_numbers(values), '    ')}{dtype}\n)"


def _numbers(values: Any) -> str:
    """Nested lists of numbers, filled line by line."""
    if isinstance(values, list) and values and isinstance(values[0], list):
        return "[\n" + "".join(f"{textwrap.indent(_numbers(row), '    ')},\n" for row in values) + "]"
    return "\n".join(textwrap.wrap(repr(values), WIDTH - 20, break_long_words=False, break_on_hyphens=False))


def _block(opens: str, items: list[str], closes: str) -> str:
    one_line = opens + ", ".join(items) + closes
    if len(one_line) <= WIDTH and "\n" not in one_line:
        return one_line
    return f"{opens}\n" + "".join(f"{textwrap.indent(item, '    ')},\n" for item in items) + closes
