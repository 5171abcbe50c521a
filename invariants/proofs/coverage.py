"""Which invariants rest on a proof, and which are contracts that no algebra can show."""

from invariants.proofs.registry import all_proofs

CONTRACTS = {
    "split.matches_reference": "agreement of two programs; what the specification computes is proved by itself",
    "split.purity": "what a program does to its arguments",
    "optimizer.inert_quarantine": "that a gradient is None is a fact about a program; what is not stepped cannot move",
    "optimizer.none_ignores_basis": "that a program does not read an argument",
    "optimizer.deterministic": "that a program gives the same bits twice",
    "optimizer.resumption": "what a checkpoint holds",
    "optimizer.nonfinite_gradient": "what a program refuses",
    "optimizer.matches_reference": "agreement of two programs",
    "adapter.ablation_restores": "what a program leaves behind on every exit",
    "adapter.frozen_basis": "that autograd holds no graph over frozen tensors",
    "adapter.saves": "what a file format accepts and gives back",
    "extraction.span": "agreement with a decomposition in float64; that singular vectors are extremal is known",
    "extraction.isolation": "that no gradient is left over from an earlier backward pass",
    "extraction.ablates_quarantine": "in which state a program evaluates a model",
    "extraction.leaves_no_trace": "what a program leaves behind",
}
"""Invariant id -> why it is no algebraic statement. All others need a proof, which a test asserts."""


def supported() -> dict[str, tuple[str, ...]]:
    """Invariant id -> names of the proofs that it rests on."""
    names: dict[str, list[str]] = {}
    for proof in all_proofs():
        for id in proof.supports:
            names.setdefault(id, []).append(proof.name)
    return {id: tuple(found) for id, found in names.items()}
