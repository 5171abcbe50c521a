"""Loops of our own over V, compiled by Numba: for large stacks on one CPU thread, where torch's are slow.

    with use_kernels("off"):        # or the environment variable PROJECTED_GRPO_KERNELS; auto if neither says anything
        optimizer.step()

A split multiplies V (m, k, r) twice. torch's batched products read all of it from memory each time, and slower than
memory allows, for a product of one row with a few is a shape that they are not made for. Here a module's V is still in
the cache when it is used again.

    auto    where numba is installed (the extra `kernels`), torch computes on one thread, and V has PAYS_FROM entries
    on      wherever they can be used: dense float32 or float64 on a CPU, where no gradient flows
    off     never; torch computes

Sums are taken in another order than torch's, so the last bits differ, within the bounds in `split`. Each process
compiles them when they are first used, which takes a second.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Literal, cast, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from projected_grpo.errors import SettingError

Choice = Literal["auto", "on", "off"]
KERNELS = "PROJECTED_GRPO_KERNELS"
PAYS_FROM = 2**18  # entries of V: a megabyte in float32, about what one core has as a cache of its own
_chosen: ContextVar[Choice] = ContextVar("kernels")


@contextmanager
def use_kernels(choice: Choice) -> Iterator[None]:
    """Inside the block the kernels are used as the choice says, whatever the environment variable does.

    A block counts in its own thread.

    Raises:
        SettingError: an unknown choice, or `on` without numba.
    """
    token = _chosen.set(_checked(choice, "use_kernels"))
    try:
        yield
    finally:
        _chosen.reset(token)


def choice() -> Choice:
    """That of the innermost `use_kernels`, or of the environment variable.

    Raises SettingError where the variable's is unknown, or `on` without numba.
    """
    chosen = _chosen.get(None)
    return _checked(os.environ.get(KERNELS) or "auto", KERNELS) if chosen is None else chosen


def enabled(entries: int) -> bool:
    """Whether the kernels are chosen, and there, for a V of so many entries; without numba they never are.

    Raises SettingError as `choice` does.
    """
    chosen = choice()
    pays = entries >= PAYS_FROM and torch.get_num_threads() == 1
    return (chosen == "on" or (chosen == "auto" and pays)) and _compiled() is not None


def serve(V: Float[Tensor, "m k r"], vectors: Sequence[Float[Tensor, "m r"]]) -> bool:
    """Whether the kernels are to be used for these."""
    return (
        V.device.type == "cpu"
        and V.dtype in (torch.float32, torch.float64)
        and enabled(V.numel())
        and all(x.dtype == V.dtype and x.is_contiguous() and not x.requires_grad for x in (V, *vectors))
        and not torch.compiler.is_compiling()
    )


def version() -> str | None:
    """That of numba; None where it is missing or does not load."""
    return None if (compiled := _compiled()) is None else str(compiled.VERSION)


def split(
    g: Float[Tensor, "m r"],
    V: Float[Tensor, "m k r"],
    *,
    one_sided: bool,
    strength: float,
    open: Bool[Tensor, "m k"] | None,
    in_place: bool,
) -> tuple[Float[Tensor, "m r"], Float[Tensor, "m r"], Float[Tensor, "m k"]]:
    """kept, removed and the coefficients c = V g; with removed = strength · Vᵀ c over the axes that pass.

    Arguments:
        g, V: which `serve` has said yes to.
        one_sided: only axes with c > 0 pass.
        strength: how much of a coefficient that passes is removed.
        open: the axes that pass, whatever `one_sided` says.
        in_place: what is kept may be written over g.
    """
    c = V.new_empty(V.shape[:2])
    kept, removed = g if in_place else torch.empty_like(g), torch.empty_like(g)
    passes = torch.empty(0, 0, dtype=torch.bool) if open is None else open
    arrays = [each.numpy() for each in (g, V, passes, c, removed, kept)]
    _loops().split(*arrays, one_sided, strength)
    return kept, removed, c


def along(
    vectors: Sequence[Float[Tensor, "m r"]], V: Float[Tensor, "m k r"], place: int
) -> tuple[Float[Tensor, "m j k"], Float[Tensor, "m j"], Float[Tensor, " m"]]:
    """V x and the plain length of each of the j vectors x of every module, and Σ |x - VᵀV x| of that in one place.

    Arguments:
        vectors, V: which `serve` has said yes to.
        place: of the vector whose part off the basis is summed.
    """
    m, k, _ = V.shape
    c, squares, off = V.new_empty(m, len(vectors), k), V.new_empty(m, len(vectors)), V.new_empty(m)
    arrays = [each.numpy() for each in (V, c, squares, off)]
    _loops().along(tuple(x.numpy() for x in vectors), *arrays, place)
    return c, squares.sqrt_(), off


def _checked(chosen: str, where: str) -> Choice:
    if chosen not in get_args(Choice):
        raise SettingError(f"{where} is {chosen!r}; it must be one of {', '.join(get_args(Choice))}.")
    if chosen == "on" and _compiled() is None:
        raise SettingError(f"{where} is 'on', and numba is missing or does not load: pip install numba, or say 'auto'.")
    return cast(Choice, chosen)


def _loops() -> ModuleType:
    """The compiled loops; for who has asked `serve`."""
    if (compiled := _compiled()) is None:
        raise SettingError("The kernels need numba; ask kernels.serve before.")
    return compiled


@cache
def _compiled() -> ModuleType | None:
    """Imported when it is first asked for, for that takes a quarter of a second."""
    try:
        return import_module("projected_grpo.kernels.compiled")
    except ImportError:  # numba also raises it for a version of numpy that it does not know
        return None
