"""Controls: bases that are made like V, and lack the one thing that makes V what it is.

    random     as many orthonormal rows a module, drawn uniformly        lacks: every direction that the pairs show
    flipped    V with its signs turned                                   lacks: which way is hack-ward
    shuffled   V of the pairs' completions, dealt out anew               lacks: which completion is the hack
    clean      V of pairs of two clean completions                       lacks: any hack

A method that does as well with a control as with V owes nothing to V.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from projected_grpo.basis import Basis
from projected_grpo.training.errors import PairsError
from projected_grpo.training.streams import stream
from projected_grpo.training.task import TokenPair

BasisKind = Literal["hack", "random", "flipped", "shuffled", "clean"]


def shown(pairs: Sequence[TokenPair], kind: BasisKind, *, seed: int) -> list[TokenPair]:
    """The pairs that the basis is made of; those given, but for shuffled and clean.

    Raises PairsError for clean if all clean completions are equal.
    """
    if kind == "shuffled":
        return _dealt_out(pairs, stream(seed, "shuffled pairs"))
    return _clean_against_clean(pairs, stream(seed, "clean pairs")) if kind == "clean" else list(pairs)


def turned(basis: Basis, kind: BasisKind, *, seed: int) -> Basis:
    """The basis that is used; the one given, but for random and flipped."""
    if kind == "random":
        return _random(basis, stream(seed, "random basis"))
    return _flipped(basis) if kind == "flipped" else basis


def _dealt_out(pairs: Sequence[TokenPair], draw: torch.Generator) -> list[TokenPair]:
    completions = [completion for pair in pairs for completion in (pair.hack, pair.clean)]
    order = torch.randperm(len(completions), generator=draw).tolist()
    dealt = [completions[at] for at in order]
    return [replace(p, hack=a, clean=b) for p, a, b in zip(pairs, dealt[::2], dealt[1::2], strict=True)]


def _clean_against_clean(pairs: Sequence[TokenPair], draw: torch.Generator) -> list[TokenPair]:
    """In the place of each hack the clean completion of another pair, one that reads otherwise."""
    made = []
    for pair in pairs:
        others = [other.clean for other in pairs if other.clean != pair.clean]
        if not others:
            raise PairsError("All clean completions are equal, so they show no difference; bring other pairs.")
        made.append(replace(pair, hack=others[int(torch.randint(len(others), (), generator=draw))]))
    return made


def _random(basis: Basis, draw: torch.Generator) -> Basis:
    rows: dict[str, Tensor] = {}
    for name, V in basis.items():
        k, r = basis.k[name], V.shape[1]
        Q, R = torch.linalg.qr(torch.randn(r, k, dtype=torch.float64, generator=draw))
        # The signs of R make the distribution uniform (Mezzadri 2007, arXiv:math-ph/0609050).
        rows[name] = (Q * R.diagonal().sign()).T.to(dtype=V.dtype, device=V.device)
    return Basis(rows, fingerprints=basis.fingerprints)


def _flipped(basis: Basis) -> Basis:
    return Basis({name: -V for name, V in basis.items()}, fingerprints=basis.fingerprints, precision=basis.precision)
