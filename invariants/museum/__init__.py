"""The museum of known bugs: small correct implementations, and beside them what goes wrong, a line or a method each.

Every invariant has a fault here that it must catch, and so has every property of an optimizer; and every fault has
something that is named for it.
"""

from invariants.museum import (
    adapter,
    extraction,
    grader,
    grading,
    grpo,
    logbook,
    logs,
    optimizer,
    optimizer_routed,
    predictable,
    routed_step,
    spaces,
    split,
    stacked,
    trainer,
    training,
)
from invariants.museum.exemplars import EXEMPLARS, OptimizerFault
from invariants.museum.fault import FAULTS, Fault
from invariants.museum.self_test import SelfTest, selftest
from invariants.museum.subjects import SubjectFault
from invariants.subject import Subject

CORRECT = Subject(
    name="correct", split=split.CORRECT,
    routed_step={**routed_step.CORRECT, **spaces.CORRECT, **predictable.CORRECT, **stacked.CORRECT},
    adapter=adapter.CORRECT, grpo=grpo.CORRECT, extraction=extraction.CORRECT, train=trainer.CORRECT,
    grade=grader.CORRECT, logs=logbook.CORRECT,
)  # fmt: skip
"""The subject that faults are one change away from; it must trip nothing."""

__all__ = [
    "CORRECT",
    "EXEMPLARS",
    "FAULTS",
    "Fault",
    "OptimizerFault",
    "SelfTest",
    "SubjectFault",
    "grading",
    "logs",
    "optimizer",
    "optimizer_routed",
    "selftest",
    "training",
]
