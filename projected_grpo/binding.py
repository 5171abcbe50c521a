"""Which vectors a basis speaks about, and whether the two fit."""

from collections.abc import Mapping

from torch import nn

from projected_grpo.basis import Basis
from projected_grpo.errors import (
    ArgumentTypeError,
    SharedVectorError,
    UnmatchedNamesError,
)
from projected_grpo.stacks import check_fits
from projected_grpo.vectors import VectorPair, VectorSource

SHOWN = 3


def vectors_of(source: VectorSource) -> dict[str, VectorPair]:
    """Module name → its two vectors, of an adapted model or as handed in.

    Raises:
        ArgumentTypeError: the source is neither, or what is handed in for a module is no pair of vectors.
    """
    if isinstance(source, nn.Module):
        # On demand: the adapter brings peft along, which whoever hands in vectors may not have.
        from projected_grpo.adapter import routed_vectors

        return dict(routed_vectors(source))
    if not isinstance(source, Mapping):
        raise ArgumentTypeError(
            f"vectors is a {type(source).__name__}; pass an adapted model, or a dict from module names to VectorPair."
        )
    return {name: _pair(name, pair) for name, pair in source.items()}


def _pair(name: str, pair: object) -> VectorPair:
    match pair:
        case (nn.Parameter() as deployed, (nn.Parameter() | None) as quarantine) if isinstance(pair, tuple):
            return VectorPair(deployed, quarantine)
    raise ArgumentTypeError(
        f"{name}: its vectors are a {type(pair).__name__}; pass VectorPair(deployed, quarantine), two parameters of "
        "which the second may be None."
    )


def fingerprints_of(source: VectorSource) -> dict[str, str] | None:
    """Module name → fingerprint of its decomposition; None for vectors alone, which have nothing to compare.

    Of a model the weights are hashed as they are now, so it costs a pass over all adapted weights.
    """
    if not isinstance(source, nn.Module):
        return None
    from projected_grpo.adapter import fingerprints

    return dict(fingerprints(source))


def check_fit(vectors: Mapping[str, VectorPair], basis: Basis, fingerprints: Mapping[str, str] | None = None) -> None:
    """Refuses a basis that does not fit the vectors; modules that the basis doesn't name are fine.

    Raises:
        ArgumentTypeError: the basis is no `Basis`.
        SharedVectorError, UnmatchedNamesError, ShapeMismatchError, DTypeMismatchError, DeviceMismatchError.
        StaleBasisError: fingerprints are given, the basis has some, and one differs.
    """
    if not isinstance(basis, Basis):
        raise ArgumentTypeError(f"basis is a {type(basis).__name__}; wrap its rows: Basis({{module: V, ...}}).")
    owner: dict[int, str] = {}
    for name, own in ((name, vector) for name, pair in vectors.items() for vector in pair if vector is not None):
        if id(own) in owner:
            raise SharedVectorError(
                f"{name} and {owner[id(own)]} share a vector; give every module two of its own, or leave one out."
            )
        owner[id(own)] = name
    unmatched = [name for name in basis if name not in vectors]
    if unmatched:
        raise UnmatchedNamesError(
            f"{len(unmatched)} of {len(basis)} names in the basis match no adapted module: {_some(unmatched)}; "
            f"adapted modules are called {_some(list(vectors))}. Extract the basis from this model, or rename its rows."
        )
    for name, V in basis.items():
        for role, vector in zip(VectorPair._fields, vectors[name], strict=True):
            if vector is None:
                continue
            check_fits(f"{name}: the {role} vector", vector, V.shape[1], V.dtype, V.device)
    if fingerprints is not None:
        basis.check_fingerprints(fingerprints)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
