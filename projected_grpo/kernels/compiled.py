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

from projected_grpo.kernels import ACCUMULATED, DISPLACEMENT, GAUGES, QUARANTINE

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


@njit(**ANY_ORDER)
@no_type_check
def _products(x, y, v, w):
    """<x, v>, <x, w>, <y, v>, <y, w>, with half as many reads."""
    xv = xw = yv = yw = x.dtype.type(0)
    for i in range(x.shape[0]):
        xv += x[i] * v[i]
        xw += x[i] * w[i]
        yv += y[i] * v[i]
        yw += y[i] * w[i]
    return xv, xw, yv, yw


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
def _at(address, like):
    """The vector that lies there, as long and of the kind as a row of those."""
    return carray(_pointer(address, like), (like.shape[1],))


# Each of these is one loop over arrays of its own: one that writes several, or whose arrays may be one another, is
# compiled entry by entry.
@njit(**IN_ORDER)
@no_type_check
def _difference(a, b, out):
    """out = a - b; other memory than theirs."""
    for i in range(out.shape[0]):
        out[i] = a[i] - b[i]


@njit(**IN_ORDER)
@no_type_check
def _copy(a, out):
    """out = a; other memory than a's."""
    for i in range(out.shape[0]):
        out[i] = a[i]


@njit(**IN_ORDER)
@no_type_check
def _take_away(a, b):
    """a -= b."""
    for i in range(a.shape[0]):
        a[i] -= b[i]


@njit(**IN_ORDER)
@no_type_check
def _negate(a, out):
    """out = -a; other memory than a's."""
    for i in range(out.shape[0]):
        out[i] = -a[i]


@njit(**IN_ORDER)
@no_type_check
def _split(g, V, open, c, removed, one_sided, factor):
    """c = V g of one module, and removed = factor Vᵀ c over the axes that pass."""
    k, r = V.shape
    for j in range(k):
        c[j] = _product(g, V[j])
    removed[:] = 0
    for j in range(k):
        closed = not open[j] if open.size else one_sided and c[j] <= 0
        if not closed:
            used = c[j] * factor
            for i in range(r):
                removed[i] += used * V[j, i]


@njit(**IN_ORDER)
@no_type_check
def _look_at_two(x, y, V, c, d):
    """c = V x and d = V y of one module."""
    k, _ = V.shape
    for j in range(0, k - 1, 2):
        c[j], c[j + 1], d[j], d[j + 1] = _products(x, y, V[j], V[j + 1])
    if k % 2:
        c[k - 1] = _product(x, V[k - 1])
        d[k - 1] = _product(y, V[k - 1])


@njit(**IN_ORDER)
@no_type_check
def _off(x, c, V, rest):
    """Σ |x - Vᵀ c|."""
    k, r = V.shape
    for i in range(r):
        rest[i] = x[i]
    for j in range(k):
        for i in range(r):
            rest[i] -= c[j] * V[j, i]
    return _sum_of_sizes(rest)


@njit(**IN_ORDER)
@no_type_check
def _add(c, squares, off, totals):
    """Adds what one module's coefficients (j, k), squared lengths (j,) and part off the basis say to the totals."""
    count, k = c.shape
    wide = totals.dtype.type
    for i in range(k):
        d, q = wide(c[DISPLACEMENT, i]), wide(c[QUARANTINE, i])
        totals[0] += c[ACCUMULATED, i] > 0
        totals[1] += abs(d)
        totals[3] += d * q
        totals[4] += q * q
        for b in range(count):
            if not c[b, i] <= 0:  # nor is NaN
                totals[GAUGES + b] += wide(c[b, i]) * wide(c[b, i])
    totals[2] += off
    for b in range(count):
        totals[GAUGES + count + b] += squares[b]


@njit(**IN_ORDER)
@no_type_check
def split(g, V, open, c, removed, kept, one_sided, strength, in_place):
    """See `kernels.split`; `open` is (m, 0) where the coefficients alone decide, `kept` is g if `in_place`."""
    factor = V.dtype.type(strength)
    for a in range(V.shape[0]):
        _split(g[a], V[a], open[a], c[a], removed[a], one_sided, factor)
        if in_place:
            _take_away(g[a], removed[a])
        else:
            _difference(g[a], removed[a], kept[a])


@njit(**ANY_ORDER)
@no_type_check
def of_split(g, c, G, one_sided, strength, totals):
    """See `kernels.of_split`; of lengths the squares."""
    m, k = c.shape
    wide = totals.dtype.type
    used = np.empty(k, totals.dtype)
    for a in range(m):
        for i in range(k):
            closed = one_sided and c[a, i] <= 0
            used[i] = 0 if closed else wide(c[a, i]) * strength
        totals[3] += _product(g[a], g[a])
        for i in range(k):
            along, gone = wide(c[a, i]), wide(0)
            for j in range(k):
                gone += used[j] * G[a, j, i]
            left = along - gone
            totals[0] += along > 0
            totals[1] += used[i] * gone
            totals[2] += used[i] * (2 * along - gone)
            if not along <= 0:  # nor is NaN
                totals[4] += along * along
            if not left <= 0:
                totals[5] += left * left


@njit(**IN_ORDER)
@no_type_check
def look_along(vectors, V, totals):
    """See `kernels.look_along`; of lengths the squares."""
    m, k, r = V.shape
    count = len(vectors)
    c, squares, rest = np.empty((count, k), V.dtype), np.empty(count, V.dtype), np.empty(r, V.dtype)
    for a in range(m):
        for b in range(0, count - 1, 2):
            _look_at_two(vectors[b][a], vectors[b + 1][a], V[a], c[b], c[b + 1])
        if count % 2:
            for j in range(k):
                c[count - 1, j] = _product(vectors[count - 1][a], V[a, j])
        for b in range(count):
            squares[b] = _product(vectors[b][a], vectors[b][a])
        _add(c, squares, _off(vectors[DISPLACEMENT][a], c[DISPLACEMENT], V[a], rest), totals)


@njit(**IN_ORDER)
@no_type_check
def move(
    at, quarantine_at, origin, V, open, base, held, point, coefficients, deployed, quarantine, one_sided, strength,
    g, before, start, totals,
):  # fmt: skip
    """See `memory.move`; `open` is as in `split`, `held` is empty where nothing is, `quarantine` where what is removed
    is dropped, and `g` where nothing is looked at. The totals are as in `look_along`."""
    m, k, r = V.shape
    factor = V.dtype.type(strength)
    kept, removed = np.empty(r, V.dtype), np.empty(r, V.dtype)
    update, rest = np.empty(r, V.dtype), np.empty(r, V.dtype)
    c, squares = np.empty((4, k), V.dtype), np.empty(4, V.dtype)
    for a in range(m):
        vector = _at(at[a], origin)
        _difference(origin[a], vector, kept)
        _copy(vector, point[a])
        _split(kept, V[a], open[a], coefficients[a], removed, one_sided, factor)
        _take_away(kept, removed)
        _difference(base[a], kept, deployed[a])
        _copy(deployed[a], vector)
        if quarantine.size:
            if held.size:
                _difference(held[a], removed, quarantine[a])
            else:
                _negate(removed, quarantine[a])
            _copy(quarantine[a], _at(quarantine_at[a], origin))
        if g.size:
            displacement = kept  # which nobody needs any more
            _difference(before[a], deployed[a], update)
            _difference(start[a], deployed[a], displacement)
            _look_at_two(g[a], update, V[a], c[0], c[1])
            _look_at_two(displacement, quarantine[a], V[a], c[2], c[3])
            squares[0], squares[1] = _product(g[a], g[a]), _product(update, update)
            squares[2], squares[3] = _product(displacement, displacement), _product(quarantine[a], quarantine[a])
            _add(c, squares, _off(displacement, c[2], V[a], rest), totals)


@njit(**IN_ORDER)
@no_type_check
def differ(addresses, values):
    """See `memory.Memory.differs`."""
    m, r = values.shape
    for a in range(m):
        x = _at(addresses[a], values)
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
    for a in range(values.shape[0]):
        _copy(values[a], _at(addresses[a], values))
