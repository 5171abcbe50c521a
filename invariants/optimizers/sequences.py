"""The gradients that every optimizer is measured on: drawn ones, and those of a real run.

    drawn      (24,)  a direction with noise, of a size that changes from step to step by orders of magnitude: what
                      depends on sizes (a clip, a warm-up, a rectification) or on a direction that stays (an estimate of
                      how far there is to go) shows itself
    recorded   (32,), (16,)  two modules of a GRPO run of a tiny transformer, whose gradients shrink as it learns
    noise      (24,)  normal, without any signal, and as large at every step

All lengths are multiples of 4, so that a vector can be handed over as a matrix.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import as_file, files

import torch
from torch import Tensor

from invariants.cases.draws import orthonormal_rows
from reference import Tape
from reference.tape import load

STEPS = 100  # long enough for warm-ups, rectifications, look-aheads and global estimates to have shown themselves
REFRESHED = 30  # steps after the basis was exchanged
LENGTH = 24
NOISE_AXES = 8  # of the basis along which noise may drift
RECORDED = "gradients.safetensors"
RECORDED_MODULES = ("model.layers.0.mlp.gate_proj", "model.layers.0.self_attn.v_proj")
SIGNAL = 0.25  # size of the direction that stays, relative to the noise around it
SPREAD = 0.5  # standard deviation of a start that is not zero

Values = dict[str, Tensor]  # vector -> (r,)
Sequences = dict[str, Tensor]  # vector -> (steps, r)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Starts and gradients for an optimizer by itself."""

    start: Values
    a: Sequences
    b: Sequences

    @property
    def backwards(self) -> tuple[str, ...]:
        """The vectors, the last of them first."""
        return tuple(reversed(self.start))


@dataclass(frozen=True, kw_only=True)
class Routed:
    """Starts, gradients and bases for a routed step; `refreshed` takes the place of `basis` after so many steps."""

    start: Values
    gradients: Sequences
    basis: Values
    refreshed: Values
    refreshed_after: int = STEPS

    def without_refresh(self) -> "Routed":
        """As far as the basis stays what it is."""
        return self.shortened(self.refreshed_after)

    def bases(self, name: str) -> list[tuple[int, Tensor]]:
        """Up to which step which basis (k, r) is used."""
        steps = len(self.gradients[name])
        return [(min(self.refreshed_after, steps), self.basis[name]), (steps, self.refreshed[name])]

    def having(self, gradients: Sequences) -> "Routed":
        """The same with other gradients."""
        return replace(self, gradients=gradients)

    def shortened(self, steps: int) -> "Routed":
        """The first steps."""
        return self.having({name: g[:steps] for name, g in self.gradients.items()})

    def norms(self) -> Tensor:
        """Of the gradients of all vectors together; (steps,)."""
        return torch.stack([g.double().square().sum(dim=1) for g in self.gradients.values()]).sum(dim=0).sqrt()

    def median_norm(self) -> float:
        """A limit at which a clip fires half of the time."""
        return float(self.norms().median())


@functools.cache
def recording() -> Tape:
    """The tape that ships with the suite."""
    with as_file(files("invariants.optimizers") / RECORDED) as path:
        return load(path)


def drawn(seed: int, dtype: torch.dtype = torch.float64) -> Drawn:
    """For the probes; the same seed gives the same numbers in every dtype, up to rounding.

    In float64 the starts are not zero. In narrower types they are: a start would hide small moves by its rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    real = recording().gradients[RECORDED_MODULES[0]][:STEPS]
    a, b = ({"drawn": of_changing_size(generator), "recorded": real} for _ in range(2))
    mixing = torch.linalg.qr(torch.randn(real.shape[1], real.shape[1], dtype=torch.float64, generator=generator))[0]
    b["recorded"] = real @ mixing.T  # as long as the real ones, in other directions
    spread = SPREAD if dtype == torch.float64 else 0.0
    start = {name: spread * torch.randn(g.shape[1], dtype=torch.float64, generator=generator) for name, g in b.items()}
    return Drawn(start=_cast(start, dtype), a=_cast(a, dtype), b=_cast(b, dtype))


def routed(seed: int, dtype: torch.dtype = torch.float64) -> Routed:
    """For the guarantees."""
    generator = torch.Generator().manual_seed(seed + 1)
    tape, name = recording(), RECORDED_MODULES[1]
    noise = torch.randn(STEPS + REFRESHED, LENGTH, dtype=torch.float64, generator=generator)
    spread = SPREAD if dtype == torch.float64 else 0.0
    r, real = tape.start[name].shape[0], tape.basis[name]
    return Routed(
        start=_cast(
            {
                "noise": spread * torch.randn(LENGTH, dtype=torch.float64, generator=generator),
                "recorded": tape.start[name],
            },
            dtype,
        ),
        gradients=_cast({"noise": noise, "recorded": tape.gradients[name]}, dtype),
        basis=_cast({"noise": orthonormal_rows(NOISE_AXES, LENGTH, generator), "recorded": real}, dtype),
        refreshed=_cast(
            {
                "noise": orthonormal_rows(NOISE_AXES, LENGTH, generator),
                "recorded": orthonormal_rows(len(real), r, generator),
            },
            dtype,
        ),
    )


def of_changing_size(generator: torch.Generator) -> Tensor:
    """Gradients (STEPS, LENGTH), each a direction that stays in a lot of noise, times ten to the power of a normal
    number. An estimate of how far there is to go needs such a direction; and as it stays wherever the vector goes, that
    estimate would grow without end if the direction were clearer."""
    sizes = 10 ** torch.randn(STEPS, 1, dtype=torch.float64, generator=generator)
    direction = torch.randn(1, LENGTH, dtype=torch.float64, generator=generator)
    return sizes * (SIGNAL * direction + torch.randn(STEPS, LENGTH, dtype=torch.float64, generator=generator))


def _cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}
