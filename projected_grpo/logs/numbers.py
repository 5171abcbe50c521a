"""Numbers that JSON has not, in a line of a log and back.

A metric that is a float is the string "NaN", "Infinity" or "-Infinity" there. Inside an object, where a string may be
one, it is {"float": "NaN"}.
"""

import math
from collections.abc import Mapping
from typing import Any

from projected_grpo.logs.metrics import Metric

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def as_json(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else _word(value)
    return _inside(value)


def as_numbers(values: Mapping[str, Any], known: Mapping[str, Metric]) -> dict[str, Any]:
    """Values as they were before `as_json`, by their declaration."""
    return {name: _number(value, known[name].kind) for name, value in values.items()}


def _number(value: Any, kind: str) -> Any:
    if kind == "float" and isinstance(value, str):
        return WORDS[value]
    return _outside(value) if kind == "object" else value


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _inside(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": _word(value)}
    if isinstance(value, dict):
        return {key: _inside(each) for key, each in value.items()}
    return [_inside(each) for each in value] if isinstance(value, list | tuple) else value


def _outside(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {"float"} and value["float"] in WORDS:
            return WORDS[value["float"]]
        return {key: _outside(each) for key, each in value.items()}
    return [_outside(each) for each in value] if isinstance(value, list) else value
