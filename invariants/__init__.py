"""Invariants of gradient routing, and the runner that checks them on anybody's implementation.

from invariants import Subject, verify
report = verify(Subject(name="mine", split=my_split))
assert report.ok
"""

import invariants.families  # noqa: F401  (importing them registers them)
from invariants.contracts import (
    GRPO,
    LOGGED,
    AdaptedLinear,
    AdapterSetting,
    Column,
    ContrastivePair,
    ContrastiveProblem,
    Delta,
    Extraction,
    ExtractionSetting,
    FirstStep,
    FrozenLog,
    Graded,
    GradeRequest,
    GradeSetting,
    GRPOBatch,
    GRPOSetting,
    LogEvent,
    LoggedRun,
    Logs,
    LogSetting,
    ReadLog,
    Refresh,
    ResultRun,
    Series,
    SplitSetting,
    Stepped,
    Stepper,
    StepSetting,
    TrainRequest,
    TrainResult,
    TrainSetting,
)
from invariants.errors import (
    ExpectationError,
    SubjectContractError,
    SubjectImportError,
    SuiteError,
    UnknownInvariantError,
)
from invariants.expectations import Expectation, read_expectations
from invariants.load import load_subject
from invariants.measurement import Measurement
from invariants.parametrize import parametrize_with_checks
from invariants.registry import Invariant, all_but, all_invariants, invariant
from invariants.reports import as_json, as_junit, as_markdown, as_text, render
from invariants.runner import verify
from invariants.subject import Subject
from invariants.verdict import Report, Result, SettingResult, Verdict

__all__ = [
    "GRPO",
    "LOGGED",
    "AdaptedLinear",
    "AdapterSetting",
    "Column",
    "ContrastivePair",
    "ContrastiveProblem",
    "Delta",
    "Expectation",
    "ExpectationError",
    "Extraction",
    "ExtractionSetting",
    "FirstStep",
    "FrozenLog",
    "GRPOBatch",
    "GRPOSetting",
    "GradeRequest",
    "GradeSetting",
    "Graded",
    "Invariant",
    "LogEvent",
    "LogSetting",
    "LoggedRun",
    "Logs",
    "Measurement",
    "ReadLog",
    "Refresh",
    "Report",
    "Result",
    "ResultRun",
    "Series",
    "SettingResult",
    "SplitSetting",
    "StepSetting",
    "Stepped",
    "Stepper",
    "Subject",
    "SubjectContractError",
    "SubjectImportError",
    "SuiteError",
    "TrainRequest",
    "TrainResult",
    "TrainSetting",
    "UnknownInvariantError",
    "Verdict",
    "all_but",
    "all_invariants",
    "as_json",
    "as_junit",
    "as_markdown",
    "as_text",
    "invariant",
    "load_subject",
    "parametrize_with_checks",
    "read_expectations",
    "render",
    "verify",
]
