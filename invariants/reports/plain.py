"""A report as plain data, for JSON. Its schema is report.schema.json beside this file."""

import math
from importlib import resources
from typing import Any

from invariants.expectations import Expectation
from invariants.measurement import Measurement
from invariants.reports.rows import writable
from invariants.verdict import Report, Result, SettingResult

SCHEMA = "projected-grpo/report"
SCHEMA_VERSION = 1


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data. Within one schema version keys are only added; numbers that aren't finite are null."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "subject": writable(report.subject),
        "dtype": report.dtype,
        "seed": report.seed,
        "profile": report.profile,
        "tape": dict(report.tape),
        "versions": dict(report.versions),
        "ok": report.ok,
        "ran": report.ran,
        "applicable": report.applicable,
        "total": report.total,
        "results": [_result(result) for result in report.results],
    }


def schema_text() -> str:
    """The JSON Schema (draft 2020-12) that every report of this version follows."""
    return resources.files(__package__).joinpath("report.schema.json").read_text(encoding="utf-8")


def _result(result: Result) -> dict[str, Any]:
    return {
        "id": result.invariant.id,
        "theorem": result.invariant.theorem,
        "statement": result.invariant.statement,
        "verdict": str(result.verdict),
        "green": result.verdict.green,
        "occurred": dict(result.occurred),
        **_numbers(result.worst.measured),
        "settings": [_setting(setting) for setting in result.settings],
    }


def _setting(setting: SettingResult) -> dict[str, Any]:
    return {
        "setting": setting.setting,
        "verdict": str(setting.verdict),
        "reason": writable(setting.reason),
        "cases": setting.cases,
        "counterexample": writable(setting.counterexample),
        "expectation": None if setting.expectation is None else _expectation(setting.expectation),
        **_numbers(setting.measured),
    }


def _expectation(expectation: Expectation) -> dict[str, str | None]:
    expires = None if expectation.expires is None else expectation.expires.isoformat()
    return {"reason": expectation.reason, "owner": expectation.owner, "expires": expires}


def _numbers(measured: Measurement | None) -> dict[str, float | str | None]:
    if measured is None:
        return {"residual": None, "bound": None, "margin": None, "where": None}
    numbers = {"residual": measured.residual, "bound": measured.bound, "margin": measured.margin}
    finite = {name: x if math.isfinite(x) else None for name, x in numbers.items()}
    return {**finite, "where": measured.where}
