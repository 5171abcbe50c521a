"""One gradient and one basis: every step of a tape, and a seeded grid of adversarial ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from invariants.cases.draws import numbers, orthonormal_rows, spread_evenly, without_column
from reference import Tape


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitCase:
    """One gradient and one basis."""

    g: Tensor  # (r,)
    V: Tensor  # (k, r)
    label: str
    remembered: dict[object, object] = field(default_factory=dict, init=False, repr=False)
    """What trials derived from the case alone; shared by all settings."""

    @property
    def size(self) -> int:
        """How big the case is, to find the smallest that fails."""
        return self.V.numel() + self.g.numel()

    @property
    def told(self) -> str:
        """The shapes, and for a tiny case the numbers."""
        if self.size > 12:
            return self.label
        k, r = self.V.shape
        return f"r={r}, k={k}: g={numbers(self.g)}, V={numbers(self.V)}"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of its numbers."""
        return self.g, self.V

    def simpler(self) -> Iterator["SplitCase"]:
        """Cases that are a little simpler; what the rows lose with a coordinate is made orthonormal again."""
        k, r = self.V.shape
        for row in range(k):
            yield replace(self, V=torch.cat([self.V[:row], self.V[row + 1 :]]))
        for at in range(r if r > 1 else 0):
            yield replace(self, g=torch.cat([self.g[:at], self.g[at + 1 :]]), V=without_column(self.V, at))
        along = self.V @ self.g
        if k and not torch.equal(self.V, torch.eye(k, r, dtype=torch.float64)):  # the same coefficients along axes
            aside = (self.g - self.V.T @ along).norm()[None]
            yield replace(self, g=torch.cat([along, aside]), V=torch.eye(k, k + 1, dtype=torch.float64))
        for at in self.g.nonzero().flatten().tolist():
            g = self.g.clone()
            g[at] = 0.0
            yield replace(self, g=g)
        largest = float(self.g.abs().max())
        if largest not in (0.0, 1.0):
            yield replace(self, g=self.g / largest)
        for digits in (0, 1, 2, 3):
            rounded = self.g.round(decimals=digits)
            if not torch.equal(self.g, rounded):
                yield replace(self, g=rounded)
                break


def splits_of(tape: Tape, steps: int | None = None) -> Iterator[SplitCase]:
    """Every module at every step of a tape, or at this many steps, spread evenly."""
    chosen = spread_evenly(tape.steps, steps)
    for t, gradients in enumerate(tape):
        for name, g in gradients.items() if t in chosen else ():
            yield SplitCase(g=g.double(), V=tape.basis[name].double(), label=f"tape, step {t}, {name}")


# Powers of two that are denormal, or whose squares overflow, in float16, in float32 and bfloat16, and in float64. Where
# a dtype can't hold them the case is left out, or is one more with a gradient of zeros.
DENORMAL = {16: 2.0**-17, 32: 2.0**-129, 64: 2.0**-1026}
LONG = {16: 2.0**9, 32: 2.0**65, 64: 2.0**513}


def adversarial_splits(seed: int) -> Iterator[SplitCase]:
    """Gradients that are special to a basis, from r = 1 on, with k from 0 to r."""
    for r, k in ((1, 0), (1, 1), (2, 1), (5, 5), (16, 3), (64, 8), (257, 6)):
        draw = torch.Generator().manual_seed(1000 * seed + 10 * r + k)
        V = orthonormal_rows(k, r, draw)
        noise = torch.randn(r, dtype=torch.float64, generator=draw)
        weights = torch.rand(k, dtype=torch.float64, generator=draw) + 0.5
        sparse = torch.zeros(r, dtype=torch.float64)
        sparse[r // 2] = 1.0
        wide = noise * 10.0 ** torch.linspace(-12, 12, r, dtype=torch.float64)
        shapes = {
            "noise": noise,
            "zero": torch.zeros(r, dtype=torch.float64),
            "hack-ward, in the span": V.T @ weights,
            "anti-hack, in the span": -V.T @ weights,
            "orthogonal to the span": noise - V.T @ (V @ noise),
            "one coordinate": sparse,
            "equal magnitudes": noise.sign(),
            "magnitudes over 24 orders": wide,
            "huge": noise * 1e30,
            "tiny": noise * 1e-30,
            **{f"denormal in {bits} bits": noise * scale for bits, scale in DENORMAL.items()},
            **{f"squares overflow {bits} bits": noise.sign() * scale for bits, scale in LONG.items()},
        }
        for kind, g in shapes.items():
            yield SplitCase(g=g, V=V, label=f"{kind}, r={r}, k={k}")
        if k:
            zero = torch.zeros(1, r, dtype=torch.float64)
            yield SplitCase(g=noise, V=torch.cat([V[:1], zero, V[1:]]), label=f"noise, a zero row in V, r={r}, k={k}")
            yield SplitCase(g=noise, V=torch.zeros_like(V), label=f"noise, only zero rows in V, r={r}, k={k}")
