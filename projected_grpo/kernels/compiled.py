"""What Numba compiles: arrays in, results written into arrays, nothing checked. Imported by need: numba is optional.

Sums of many terms may be taken in any order, and a product be added to them without a rounding of its own, so that
several entries are computed at a time. Nothing else may: what is kept is the difference from the *rounded* part that
was removed, as the conservation bound in `split` asks for.
"""

from typing import no_type_check

import numba
import numpy as np
from numba import carray, njit, types
from numba.extending import intrinsic

VERSION = numba.__version__
IN_ORDER = {"nogil": True, "error_model": "numpy"}
ANY_ORDER = {**IN_ORDER, "fastmath": {"reassoc", "contract", "nsz"}}  # NaN and infinity are what they are


@njit(**ANY_ORDER)
@no_type_check  # numba finds the types
def _product(a, b):
    """<a, b>."""
    total = a.dtype.type(0)
    for i in range(a.shape[0]):
        total += a[i] * b[i]
    return total


@njit(**ANY_ORDER)
@no_type_check
def _sum_of_sizes(a):
    """Σ |a_i|."""
    total = a.dtype.type(0)
    for i in range(a.shape[0]):
        total += abs(a[i])
    return total


@njit(**IN_ORDER)
@no_type_check
def split(g, V, open, c, removed, kept, one_sided, strength, in_place):
    """See `kernels.split`; `open` is empty where the coefficients alone decide, `kept` is g if `in_place`."""
    m, k, r = V.shape
    factor = V.dtype.type(strength)
    for a in range(m):
        for j in range(k):
            c[a, j] = _product(g[a], V[a, j])
        removed[a, :] = 0
        for j in range(k):
            closed = not open[a, j] if open.size else one_sided and c[a, j] <= 0
            if not closed:
                used = c[a, j] * factor
                for i in range(r):
                    removed[a, i] += used * V[a, j, i]
        if in_place:  # said in so many words, for loops over arrays that may overlap are compiled entry by entry
            for i in range(r):
                g[a, i] -= removed[a, i]
        else:
            for i in range(r):
                kept[a, i] = g[a, i] - removed[a, i]


@njit(**IN_ORDER)
@no_type_check
def look_along(vectors, V, c, squares, off, off_basis_of):
    """See `kernels.look_along`."""
    m, k, r = V.shape
    rest = np.empty(r, V.dtype)
    for a in range(m):
        for b in range(len(vectors)):
            x = vectors[b][a]
            squares[a, b] = _product(x, x)
            for j in range(k):
                c[a, b, j] = _product(x, V[a, j])
        x = vectors[off_basis_of][a]
        for i in range(r):
            rest[i] = x[i]
        for j in range(k):
            for i in range(r):
                rest[i] -= c[a, off_basis_of, j] * V[a, j, i]
        off[a] = _sum_of_sizes(rest)


@intrinsic
@no_type_check
def _pointer(typing_context, address, like):
    """A pointer to entries like those of an array."""
    pointer = types.CPointer(like.dtype)

    def lower(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(address, like), lower


@njit(**IN_ORDER)
@no_type_check
def differ(addresses, values):
    """See `memory.Memory.differs`."""
    m, r = values.shape
    for a in range(m):
        x = carray(_pointer(addresses[a], values), (r,))
        others = 0
        for i in range(r):
            others += x[i] != values[a, i]
        if others:
            return True
    return False


@njit(**IN_ORDER)
@no_type_check
def write(addresses, values):
    """See `memory.Memory.write`."""
    m, r = values.shape
    for a in range(m):
        x = carray(_pointer(addresses[a], values), (r,))
        for i in range(r):
            x[i] = values[a, i]
