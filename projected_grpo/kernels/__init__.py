"""Loops of our own over V, compiled by Numba: for large stacks on one CPU thread, where torch's are slow.

    with use_kernels("off"):        # or the environment variable PROJECTED_GRPO_KERNELS; auto if neither says anything
        optimizer.step()

A split multiplies V (m, k, r) twice. torch's batched products read all of it from memory each time, and slower than
memory allows, for a product of one row with a few is a shape that they are not made for. Here a module's V is still in
the cache when it is used again: for the second product, and for diagnostics in a step that follows one whose
diagnostics were asked for. And vectors are compared, moved and written where they lie (`kernels.memory`), without a
call for each.

    auto    where numba is installed (the extra `kernels`), torch computes on one thread, and V has PAYS_FROM entries,
            of which a module has no more than that, so that the cache holds them
    on      at any size and on any number of threads
    off     never; torch computes

They serve grouped splits and diagnostics, and so the routed optimizer: of dense float32 or float64 on a CPU, where no
gradient flows and nothing of torch's (a transform, a compiler, a dispatch mode) watches. The function `split` is
torch's in any case. Sums are taken in another order than torch's, so the last bits differ, within the bounds in
`split`. Each process compiles the loops when they are first used, which takes three seconds.
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
from torch.autograd import forward_ad

from projected_grpo.errors import SettingError

Choice = Literal["auto", "on", "off"]
CHOICES = get_args(Choice)
KERNELS = "PROJECTED_GRPO_KERNELS"
PAYS_FROM = 2**18  # entries of V: a megabyte in float32, about what one core has as a cache of its own
# What diagnostics look at side by side, and how many numbers they want besides the lengths: see `along.look`.
ACCUMULATED, UPDATE, DISPLACEMENT, QUARANTINE, FED = range(5)
GAUGES = 5
_choice: ContextVar[Choice] = ContextVar("kernels")


@contextmanager
def use_kernels(choice: Choice) -> Iterator[None]:
    """Inside the block the kernels are used as the choice says, whatever the environment variable does.

    A block counts in its own thread; others go by the variable.

    Raises:
        SettingError: an unknown choice, or `on` without numba.
    """
    token = _choice.set(_checked(choice, "use_kernels"))
    try:
        yield
    finally:
        _choice.reset(token)


def chosen() -> Choice:
    """What the innermost `use_kernels` says, or the environment variable.

    Raises SettingError where the variable's word is unknown, or `on` without numba.
    """
    choice = _choice.get(None)
    return _checked(os.environ.get(KERNELS) or "auto", KERNELS) if choice is None else choice


def version() -> str | None:
    """That of numba; None where it is missing or does not load."""
    return None if (compiled := _compiled()) is None else str(compiled.VERSION)


def named() -> str | None:
    """What may compute in place of torch here, and from which size on; None where nothing does.

    Raises SettingError as `chosen` does.
    """
    choice = chosen()
    if choice == "off" or (choice == "auto" and torch.get_num_threads() > 1) or version() is None:
        return None
    return f"numba {version()}" + (f" from {PAYS_FROM:,} entries of V" if choice == "auto" else "")


def enabled(V: Float[Tensor, "m k r"]) -> bool:
    """Whether the kernels are chosen, and there, for such a V.

    Raises SettingError as `chosen` does.
    """
    choice = chosen()
    pays = V.numel() >= PAYS_FROM >= V.shape[1] * V.shape[2] and torch.get_num_threads() == 1
    kind = V.device.type == "cpu" and V.dtype in (torch.float32, torch.float64)
    return kind and (choice == "on" or (choice == "auto" and pays)) and _compiled() is not None


def serve(V: Tensor, vectors: Sequence[Tensor]) -> bool:
    """Whether the kernels are to be used for V (m, k, r) and vectors (m, r).

    Not for those that do not fit, whom torch will tell why. Nor where torch does more with a call than compute it:
    arrays in memory are all that the loops see, and what they write moves no version counter by itself.
    """
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    watched = (
        torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or forward_ad._current_level >= 0
    )
    return (
        not watched
        and enabled(V)
        and all(is_plain(x) and not x.requires_grad and x.dtype == V.dtype for x in (V, *vectors))
        and all(x.shape == (V.shape[0], V.shape[2]) and x.device == V.device for x in vectors)
    )


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is nothing but numbers one after another in memory of its own or another's."""
    kind = type(x) in (Tensor, torch.nn.Parameter) and x.is_contiguous()
    return kind and not (x.is_neg() or x._is_zerotensor())


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
    arrays = [each.numpy() for each in (g, V, open_axes(open, V), c, removed, kept)]
    loops().split(*arrays, one_sided, strength, in_place)
    return kept, removed, c


def of_split(
    g: Float[Tensor, "m r"], c: Float[Tensor, "m k"], G: Float[Tensor, "m k k"], *, one_sided: bool, strength: float
) -> Float[Tensor, "6"]:
    """What follows from the coefficients c of a split, see `split_statistics`: how many are above 0, <u, G u>,
    <u, 2c - G u>, and the plain lengths of g, relu(c) and relu(c - G u); in float64.

    Arguments:
        g, c, G: of one V, which `serve` has said yes to for g.
        one_sided, strength: as in `split`.
    """
    totals = g.new_zeros(6, dtype=torch.float64)
    loops().of_split(g.numpy(), c.contiguous().numpy(), G.numpy(), one_sided, strength, totals.numpy())
    totals[3:].sqrt_()
    return totals


def look_along(vectors: Sequence[Float[Tensor, "m r"]], V: Float[Tensor, "m k r"]) -> Float[Tensor, " n"]:
    """What `along.look` says of j vectors of every module of one group, with plain lengths.

    Arguments:
        vectors, V: which `serve` has said yes to.
    """
    totals = no_totals(V, len(vectors))
    loops().look_along(tuple(x.numpy() for x in vectors), V.numpy(), totals.numpy())
    totals[GAUGES:].sqrt_()
    return totals


def no_totals(V: Tensor, count: int) -> Float[Tensor, " n"]:
    """Zeros that the numbers of so many vectors, see `along.look`, are added to."""
    return V.new_zeros(GAUGES + 2 * count, dtype=torch.float64)


def open_axes(open: Bool[Tensor, "m k"] | None, V: Float[Tensor, "m k r"]) -> Bool[Tensor, "m _"]:
    """The axes that are open, as the loops take them; (m, 0) where the coefficients alone decide."""
    return torch.empty(V.shape[0], 0, dtype=torch.bool, device=V.device) if open is None else open


def _checked(choice: str, where: str) -> Choice:
    if choice not in CHOICES:
        raise SettingError(f"{where} is {choice!r}; it must be one of {', '.join(CHOICES)}.")
    if choice == "on" and _compiled() is None:
        raise SettingError(
            f"{where} is 'on', and numba is missing or does not load; install the extra `kernels`, or say 'auto'."
        )
    return cast(Choice, choice)


def loops() -> ModuleType:
    """The compiled loops, for who has asked `serve`."""
    compiled = _compiled()
    assert compiled is not None, "kernels.serve said no"
    return compiled


@cache
def _compiled() -> ModuleType | None:
    """Imported when it is first asked for, for that takes a quarter of a second."""
    try:
        return import_module("projected_grpo.kernels.compiled")
    except Exception:  # what a broken numba raises, or one too old for its numpy, is its own affair
        return None
