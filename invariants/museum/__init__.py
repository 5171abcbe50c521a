"""The museum of known bugs: small correct implementations, and beside them what goes wrong, a line or a method each.

Every invariant has a fault here that it must catch, and every fault an invariant that is named for it.
"""

from invariants.museum import adapter, extraction, grpo, routed_step, spaces, split
from invariants.museum.fault import FAULTS, Fault
from invariants.museum.self_test import SelfTest, selftest
from invariants.subject import Subject

CORRECT = Subject(
    name="correct", split=split.CORRECT, routed_step={**routed_step.CORRECT, **spaces.CORRECT}, adapter=adapter.CORRECT,
    grpo=grpo.CORRECT, extraction=extraction.CORRECT,
)  # fmt: skip
"""What the faults are one change away from; it must trip nothing."""

__all__ = ["CORRECT", "FAULTS", "Fault", "SelfTest", "selftest"]
