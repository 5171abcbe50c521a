"""Random numbers that are counted instead of carried along.

Every draw of a run comes from a generator made of (seed, purpose, step). What draws for one purpose then cannot shift
what another one gets, so evaluation changes no rollout, and a run that resumes at a step needs no state to draw what
the uninterrupted one drew.
"""

import hashlib

import torch


def stream(seed: int, purpose: str, step: int = 0, *, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator; equal arguments give equal draws on one kind of device.

    >>> bool(torch.equal(torch.rand(3, generator=stream(0, "x", 1)), torch.rand(3, generator=stream(0, "x", 1))))
    True
    """
    return torch.Generator(device).manual_seed(number(seed, purpose, step))


def number(seed: int, purpose: str, step: int = 0) -> int:
    """63 bits of sha256 of the three, for whatever takes a seed."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose} {step}".encode()).digest()[:8], "little") >> 1
