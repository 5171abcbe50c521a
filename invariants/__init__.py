"""Invariants of gradient routing, and the runner that checks them on anybody's implementation.

from invariants import Subject, verify
report = verify(Subject(name="mine", split=my_split))
assert report.ok
"""

import invariants.families  # noqa: F401  (importing them registers them)
from invariants.contracts import AdaptedLinear, AdapterSetting, SplitSetting, Stepped, Stepper, StepSetting
from invariants.errors import SubjectContractError, SubjectImportError, SuiteError, UnknownInvariantError
from invariants.load import load_subject
from invariants.measurement import Measurement
from invariants.parametrize import parametrize_with_checks
from invariants.registry import Invariant, all_but, all_invariants, invariant
from invariants.report import as_json, as_text, render
from invariants.runner import verify
from invariants.subject import Subject
from invariants.verdict import Report, Result, SettingResult, Verdict

__all__ = [
    "AdaptedLinear",
    "AdapterSetting",
    "Invariant",
    "Measurement",
    "Report",
    "Result",
    "SettingResult",
    "SplitSetting",
    "StepSetting",
    "Stepped",
    "Stepper",
    "Subject",
    "SubjectContractError",
    "SubjectImportError",
    "SuiteError",
    "UnknownInvariantError",
    "Verdict",
    "all_but",
    "all_invariants",
    "as_json",
    "as_text",
    "invariant",
    "load_subject",
    "parametrize_with_checks",
    "render",
    "verify",
]
