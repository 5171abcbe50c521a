"""A survey as plain data, for JSON. Its schema is optimizers.schema.json beside this file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from invariants.optimizers.against import Comparison
from invariants.optimizers.finding import Finding
from invariants.optimizers.report import OptimizerReport, Survey
from invariants.optimizers.reports.rows import group_of
from invariants.optimizers.routing import SpaceReport
from invariants.reports.rows import writable

SCHEMA = "projected-grpo/optimizers"
SCHEMA_VERSION = 1


def as_json(survey: Survey, compared: Sequence[Comparison] = ()) -> dict[str, Any]:
    """The survey as plain data. Within one schema version keys are only added; numbers that aren't finite are null."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "versions": dict(survey.versions),
        "ok": survey.ok,
        "ran": survey.ran,
        "known": len(survey.reports),
        "required": list(survey.required),
        "failures": [writable(failure) for failure in survey.failures],
        "notes": [writable(note) for note in survey.notes],
        "optimizers": [_optimizer(report) for report in survey.reports],
        "against_reference": [
            {
                "optimizer": each.twin,
                "implementation": each.implementation,
                "dtype": each.dtype,
                **_finding(each.finding),
            }
            for each in compared
        ],
    }


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) that every survey of this version follows."""
    return resources.files(__package__).joinpath("optimizers.schema.json").read_text(encoding="utf-8")


def _optimizer(report: OptimizerReport) -> dict[str, Any]:
    return {
        "name": writable(report.name),
        "source": writable(report.source),
        "arguments": {name: _plain(value) for name, value in report.kwargs.items()},
        "manner": report.manner,
        "why": report.why,
        "ran": report.ran,
        "problem": None if report.problem is None else writable(report.problem),
        "group": group_of(report),
        "advice": writable(report.advice),
        "properties": _findings(report.probes),
        "spaces": {space: _space(found) for space, found in report.spaces.items()},
        "variants": {name: _findings(found) for name, found in report.variants.items()},
    }


def _space(report: SpaceReport) -> dict[str, Any]:
    figures = None if report.figures is None else {name: _finite(x) for name, x in asdict(report.figures).items()}
    return {
        "guarantees": _findings(report.guarantees),
        "figures": figures,
        "routed_step": None if report.router is None else _finding(report.router),
    }


def _findings(found: Mapping[Any, Finding]) -> dict[str, Any]:
    return {name: _finding(finding) for name, finding in found.items()}


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "answer": str(finding.answer),
        "figure": _finite(finding.figure),
        "bound": _finite(finding.bound),
        "step": finding.step,
        "vector": finding.vector,
        "note": writable(finding.note),
    }


def _finite(x: float | None) -> float | None:
    return x if x is not None and math.isfinite(x) else None


def _plain(value: object) -> object:
    """An argument of a constructor as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return writable(repr(value))
