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
    "optimizer.gate_starts_closed": "what a program remembers",
    "optimizer.constant_calls": "how often a program calls another",
    "adapter.ablation_restores": "what a program leaves behind on every exit",
    "adapter.frozen_basis": "that autograd holds no graph over frozen tensors",
    "adapter.saves": "what a file format accepts and gives back",
    "extraction.span": "agreement with a decomposition in float64; that singular vectors are extremal is known",
    "extraction.isolation": "that no gradient is left over from an earlier backward pass",
    "extraction.ablates_quarantine": "in which state a program evaluates a model",
    "extraction.leaves_no_trace": "what a program leaves behind",
    "extraction.run_span": "agreement with a decomposition of gradients that are taken anew",
    "extraction.run_separation": "agreement of two programs on what is counted",
    "training.reproducible": "that a program gives the same bits twice",
    "training.oracle_blind": "that a program does not read what it is given to write down",
    "training.evaluation_neutral": "what an evaluation leaves behind",
    "training.logging_neutral": "what writing a log leaves behind",
    "training.measuring_neutral": "what a measurement leaves behind",
    "training.resumes": "what a checkpoint holds",
    "training.quarantine_moves_iff_routed": "which arm a program runs",
    "training.two_grades": "what a program writes down",
    "training.refresh_ablates": "in which state a program evaluates a model",
    "grading.clean_never_exploited": "what a program says of programs",
    "grading.diagonal": "what a program says of programs",
    "grading.none_has_no_flaw": "what a program says of programs",
    "grading.exit_code": "what a program says of programs",
    "grading.attacks_never_solved": "what a program says of programs",
    "grading.exact_types": "what a program says of programs",
    "grading.independent": "what a program leaves behind",
    "logs.round_trip": "what a program writes down and reads back",
    "logs.truncation": "what a program takes a damaged file for",
    "logs.damage": "what a program takes a damaged file for; that a checksum misses no single change is known",
    "logs.reads_released": "what a program reads",
    "logs.columns_appended": "what a program writes down",
    "logs.names_keep_meaning": "what a program writes down",
    "logs.every_arm": "what a program shows",
    "logs.same_seeds": "what a program compares",
    "logs.deltas": "agreement of two programs",
    "logs.deployed_is_primary": "what a program shows",
}
"""Invariant id -> why it is no algebraic statement. All others need a proof, which a test asserts."""


def supported() -> dict[str, tuple[str, ...]]:
    """Invariant id -> names of the proofs that it rests on."""
    names: dict[str, list[str]] = {}
    for proof in all_proofs():
        for id in proof.supports:
            names.setdefault(id, []).append(proof.name)
    return {id: tuple(found) for id, found in names.items()}
