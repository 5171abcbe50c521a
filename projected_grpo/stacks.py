"""Vectors of many modules as a few stacks (m, r), so that a step is a few operations however many modules it has.

    {"a.q": (r,), "b.q": (r,), "a.v": (s,)}     <->     [(2, r), (1, s)]

A loop over 252 modules costs a call, an allocation and a kernel for each of them and each operation; a stack costs them
once. Only two things remain that are done per module, in one call each: gathering the vectors, and handing rows back.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo.errors import DeviceMismatchError, DTypeMismatchError, ShapeMismatchError
from projected_grpo.norms import in_own_dtypes

Stacks = tuple[Tensor, ...] | list[Tensor]  # one (m, r) for each group of a layout, in its order


@dataclass(frozen=True)
class Group:
    """Modules whose vectors lie in one stack."""

    names: tuple[str, ...]
    r: int
    dtype: torch.dtype
    device: torch.device

    def stack(self, vectors: Mapping[str, Tensor], out: Tensor | None = None) -> Tensor:
        """The vectors of the group, (m, r), written over `out` if it is there; see `Layout.stack`."""
        zero = None
        present = []
        for name in self.names:
            vector = vectors.get(name)
            if vector is None:
                zero = torch.zeros(self.r, dtype=self.dtype, device=self.device) if zero is None else zero
                vector = zero
            present.append(vector)
        if out is not None and present[0].shape != (self.r,):  # torch.stack would make room for them
            self.check(vectors)
        try:
            stacked = torch.stack(present, out=out)
        except RuntimeError:  # which says about lengths and devices only that they differ
            self.check(vectors)
            raise
        # torch.stack promotes dtypes without a word.
        alike = {part.dtype for part in present} == {self.dtype}
        if not alike or stacked.shape[1:] != (self.r,) or stacked.device != self.device:
            self.check(vectors)
        return stacked

    def check(self, vectors: Mapping[str, Tensor]) -> None:
        """Names the first vector that does not fit; see `Layout.stack`."""
        for name in self.names:
            vector = vectors.get(name)
            if vector is None:
                continue
            check_fits(f"{name}: the vector", vector, self.r, self.dtype, self.device)


def check_fits(what: str, vector: Tensor, r: int, dtype: torch.dtype, device: torch.device) -> None:
    """Refuses a vector that is not (r,), or not of the dtype or on the device of its basis.

    Raises ShapeMismatchError, DTypeMismatchError or DeviceMismatchError, whose sentence begins with `what`.
    """
    if vector.shape != (r,):
        raise ShapeMismatchError(
            f"{what} is {tuple(vector.shape)}, its basis has r = {r}; extract the basis again from this model."
        )
    if vector.dtype != dtype:
        raise DTypeMismatchError(
            f"{what} is {vector.dtype} and its basis {dtype}; convert the basis with basis.to(dtype={vector.dtype})."
        )
    if vector.device != device:
        raise DeviceMismatchError(
            f"{what} is on {vector.device} and its basis on {device}; move the basis with "
            f"basis.to(device={str(vector.device)!r})."
        )


class Layout:
    """Which module lies in which stack: one stack for each (length, dtype, device).

    Arguments:
        like: module → a tensor whose last dimension, dtype and device are those of the module's vectors.
        leading: modules of these names come first, in stacks of their own.
    """

    def __init__(self, like: Mapping[str, Tensor], leading: Collection[str] = ()) -> None:
        alike: defaultdict[tuple[bool, int, torch.dtype, torch.device], list[str]] = defaultdict(list)
        first = dict.fromkeys(name for name in leading if name in like)
        for name in [*first, *(name for name in like if name not in first)]:
            tensor = like[name]
            alike[name in first, tensor.shape[-1], tensor.dtype, tensor.device].append(name)
        self.groups = [Group(tuple(names), r, dtype, device) for (_, r, dtype, device), names in alike.items()]
        self.names = [name for group in self.groups for name in group.names]

    def stack(self, vectors: Mapping[str, Tensor]) -> Stacks:
        """Copies of the vectors (r,), zeros for modules that have none.

        Raises:
            ShapeMismatchError, DTypeMismatchError, DeviceMismatchError: names the first vector that does not fit.
        """
        with in_own_dtypes():
            return [group.stack(vectors) for group in self.groups]

    def rows(self, stacks: Iterable[Tensor]) -> dict[str, Tensor]:
        """Module → its row (r,), a view."""
        return dict(zip(self.names, (row for stack in stacks for row in stack.unbind()), strict=True))


def end_to_end(parts: Sequence[Float[Tensor, "*lead _"]], home: torch.device | None = None) -> Float[Tensor, "*lead n"]:
    """All of them one after another along their last axis, in float64, where the first is if not at `home`."""
    home = home or parts[0].device
    return torch.cat([part.to(home, torch.float64) for part in parts], dim=-1)
