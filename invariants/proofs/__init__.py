"""The proofs that the invariants rest on: identities by computer algebra, lemmas about all floats by a solver.

    python -m invariants.proofs            all of them, in a table
    python -m invariants.proofs --fast     without those that take a solver longer than a few seconds

What is proved is a statement about formulas. That the code computes these formulas is what the suite tests.
"""

from invariants.proofs import (  # noqa: F401, I001  (importing them registers them, theorem by theorem)
    split, clip, optimizers, spaces, noise, adapter, grpo, extraction, floats,
)  # fmt: skip
from invariants.proofs.coverage import CONTRACTS, supported
from invariants.proofs.registry import HOW, Proof, RefutedError, Step, all_proofs, proof
from invariants.proofs.runner import Outcome, prove_all

__all__ = [
    "CONTRACTS",
    "HOW",
    "Outcome",
    "Proof",
    "RefutedError",
    "Step",
    "all_proofs",
    "proof",
    "prove_all",
    "supported",
]
