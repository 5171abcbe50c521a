"""split.*, for scripts.

c = V g        removed = overshoot V^T gate(c)        kept = g - removed
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from invariants.repro.snippet import IMPOSSIBLE, Residuals, snippet

Split = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

OWN_DRAWS = "the check draws its own input once per setting, so there is no counterexample to hold up"
IMPOSSIBLE["split.null_baseline"] = OWN_DRAWS
IMPOSSIBLE["split.zero_gradient"] = OWN_DRAWS

FORWARD = "forward error of removed: scale gamma(r + k + 4) |V|^T |V| |g|"


def parts(split: Split, g: Tensor, V: Tensor) -> tuple[Tensor, Tensor]:
    """Kept and removed, in float64, of copies of the arguments."""
    kept, removed = split(g.clone(), V.clone())
    return kept.detach().double().clone(), removed.detach().double().clone()


def through_the_gate(c: Tensor, gate: str) -> Tensor:
    """Which coefficients are removed."""
    return {"one_sided": torch.relu(c), "no_gate": c, "reverse": 2 * c}[gate]


@snippet(
    "split.conservation",
    allows="2 u max(|g|, |removed|, |kept|) where the stored removed was subtracted; else u gamma(k + 1) terms more",
)
def conservation(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """The two parts add up to the gradient."""
    kept, removed = parts(split, g, V)
    total = kept.to(g.dtype) + removed.to(g.dtype)
    return {"kept + removed - g": total.double() - g.double()}


@snippet("split.pythagoras", allows=f"|kept| and |removed| against each other's rounding ({FORWARD})")
def pythagoras(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """The two parts are orthogonal."""
    unit = 2.0 ** min(max(math.frexp(math.hypot(*g.tolist()))[1], -1021), 1023)  # so that no square overflows
    kept, removed = (part / unit for part in parts(split, g, V))
    return {f"kept @ removed, in units of {unit:g}^2": kept @ removed}


@snippet("split.one_sided", allows="the rounding of kept, seen through |V|")
def one_sided(split: Split, g: Tensor, V: Tensor, gate: str, overshoot: float) -> Residuals:
    """What is kept has the component that the gate leaves, and no other."""
    kept, _ = parts(split, g, V)
    c = V.double() @ g.double()
    left = c - overshoot * through_the_gate(c, gate)
    return {"V kept - (c - c_use)": V.double() @ kept - left}


@snippet("split.idempotence", allows="|V|^T times the rounding that a first pass may leave along V")
def idempotence(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """A second split removes nothing more."""
    kept, _ = parts(split, g, V)
    _, again = parts(split, kept.to(g.dtype), V)
    return {"removed from what was kept": again}


@snippet("split.homogeneity", allows="0 for powers of two, but for results below the normal range")
def homogeneity(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """A gradient that is longer is split into parts that are longer."""
    compared = {}
    once = parts(split, g, V)
    for factor in (2.0, 0.25, 64.0):
        if float((g.double() * factor).abs().max()) > torch.finfo(g.dtype).max / 2**10:
            continue
        scaled = parts(split, (g.double() * factor).to(g.dtype), V)
        for name, part, at_one in zip(("kept", "removed"), scaled, once, strict=True):
            compared[f"{name} of {factor:g} g, minus {factor:g} {name}"] = part - factor * at_one
    return compared


@snippet("split.additivity", allows=f"three times the {FORWARD}, and the rounding of the sum")
def additivity(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """The parts of a sum are the sums of the parts; the other gradient is g, rolled by one."""
    other = g.roll(1)
    compared = {}
    one, two, both = (parts(split, x, V) for x in (g, other, g + other))
    for name, a, b, whole in zip(("kept", "removed"), one, two, both, strict=True):
        compared[f"{name}(g + other) - {name}(g) - {name}(other)"] = whole - a - b
    return compared


@snippet("split.span", allows=f"{FORWARD}, and the same seen through V^T V")
def span(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """Nothing outside of the span of V is removed."""
    _, removed = parts(split, g, V)
    V = V.double()
    return {"removed - V^T V removed": removed - V.T @ (V @ removed)}


@snippet("split.matches_reference", allows=f"{FORWARD}; of kept, a rounding of the subtraction more")
def matches_reference(
    split: Split, g: Tensor, V: Tensor, gate: str, overshoot: float, preserve_magnitude: bool
) -> Residuals:
    """Both parts are what the rule says."""
    kept, removed = parts(split, g, V)
    g, V = g.double(), V.double()
    exact = overshoot * (V.T @ through_the_gate(V @ g, gate))
    left = g - exact
    if not preserve_magnitude:
        return {"removed - V^T c_use": removed - exact, "kept - (g - V^T c_use)": kept - left}
    rescaled = left * (g.norm() / left.norm()) if left.any() else left
    return {"removed - V^T c_use": removed - exact, "|kept - rescaled (g - V^T c_use)|": (kept - rescaled).norm()}


@snippet("split.empty_basis", allows="0; where kept is rescaled, gamma(2 r + 8) |g|")
def empty_basis(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """Without hack directions everything is kept."""
    kept, removed = parts(split, g, V[:0])
    return {"removed": removed, "kept - g": kept - g.double()}


@snippet("split.zero_rows", allows=f"{FORWARD}, with and without the zero rows")
def zero_rows(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """Zero rows change nothing."""
    _, padded = parts(split, g, torch.cat([V, torch.zeros(2, len(g), dtype=V.dtype)]))
    _, removed = parts(split, g, V)
    return {"removed with two zero rows - removed": padded - removed}


@snippet("split.preserves_magnitude", allows="gamma(2 r + 8) |g|")
def preserves_magnitude(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """What is kept is as long as the gradient was."""
    kept, _ = parts(split, g, V)
    return {"|kept| - |g|": kept.norm() - g.double().norm()}


@snippet("split.purity", allows="0: the same bits")
def purity(split: Split, g: Tensor, V: Tensor) -> Residuals:
    """The arguments stay as they were, and so does what was handed out, and a second call gives the same."""
    given = g.clone(), V.clone()
    first = [part.detach() for part in split(g, V)]
    kept = [part.clone() for part in first]
    split(-g.roll(1), V)
    later = [part.clone() for part in first]
    again = [part.detach() for part in split(g, V)]
    return {
        "g afterwards - g": g.double() - given[0].double(),
        "V afterwards - V": V.double() - given[1].double(),
        **{
            f"{n} after another call": (a - b).double()
            for n, a, b in zip(("kept", "removed"), later, kept, strict=True)
        },
        **{f"{n} of a second call": (a - b).double() for n, a, b in zip(("kept", "removed"), again, kept, strict=True)},
    }
