"""What is published of the declaration: a JSON Schema of a line, and a page that explains every metric."""

import json
from collections.abc import Iterator
from typing import Any

from projected_grpo.logs.lines import SCHEMA
from projected_grpo.logs.metrics import ALL, EVENTS, METRICS, Kind, Metric, declared
from projected_grpo.logs.numbers import WORDS
from projected_grpo.logs.stream import COLUMNS

NAME = f"log-{SCHEMA}.schema.json"
TYPES: dict[Kind, dict[str, Any]] = {
    "float": {"anyOf": [{"type": ["number", "null"]}, {"enum": list(WORDS)}]},
    "int": {"type": ["integer", "null"]},
    "str": {"type": ["string", "null"]},
    "bool": {"type": ["boolean", "null"]},
    "object": {"type": ["object", "array", "null"]},
}

HEAD = f"""# The log of a run

`log.jsonl` in a run's folder has one JSON object a line. A line begins with the schema's version (now {SCHEMA}), the
event and the step, and ends with its own number, counted from 1, and with `crc32`: the CRC-32 of its bytes before
`, "crc32"`, as eight hexadecimal digits. Between them stands every metric of the event, in the order of the tables
below; null is what was not measured or is not defined in the run's arm, and never 0. A number that JSON does not have
is the string `"NaN"`, `"Infinity"` or `"-Infinity"`, inside an object `{{"float": "NaN"}}`. The
[JSON Schema](../projected_grpo/logs/{NAME}) of a line says the same to programs.

A log that was cut off, or of which anything was changed, is read up to the damage and no farther: a line whose checksum
does not fit or whose number is not its own ends it. A run is complete once its last line is `final`.

Metrics are only appended to their event, a name is never used for another quantity, and neither type, unit, meaning nor
arms of a metric change: `regression/schema` has every released version, and a test holds it against today's. Whatever
is a share of counted things has its denominator beside it.

`read` gives the lines of a log, `recover` what stands before its first damage. `projected_grpo.logs.adapters` tells
TensorBoard, wandb and trackio of the same events: `with tracking("tensorboard", folder) as tell:`, and `tell` is what
`Trainer.begin(config, tell=tell)` takes.

This page is written by `python -m projected_grpo.logs --write`."""
STREAM = """Where its output is no terminal, `projected-grpo train` writes a table of steps to stderr, with a legend
before it. A cell such as `12/96` is a fraction with its denominator, `null` what was not measured or is not defined.
Other events are lines between the rows. The columns, in their order:"""


def json_schema() -> dict[str, Any]:
    """The schema of one line."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A line of a log of projected-grpo, version {SCHEMA}",
        "type": "object",
        "oneOf": [_of_event(event, told) for event, told in EVENTS.items()],
    }


def json_schema_text() -> str:
    """The schema as its file has it."""
    return json.dumps(json_schema(), indent=1) + "\n"


def _of_event(event: str, told: str) -> dict[str, Any]:
    known = declared(event)
    properties: dict[str, Any] = {
        "schema": {"const": SCHEMA}, "event": {"const": event},
        "step": {"type": "integer"}, **{name: _of_metric(metric) for name, metric in known.items()},
        "line": {"type": "integer", "minimum": 1}, "crc32": {"type": "string", "pattern": "^[0-9a-f]{8}$"},
    }  # fmt: skip
    return {
        "title": event, "description": told, "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


def _of_metric(metric: Metric) -> dict[str, Any]:
    extra = {"x-unit": metric.unit, "x-since": metric.since, "x-arms": list(metric.arms)}
    return {"description": metric.meaning, **TYPES[metric.kind], **extra, **({"x-of": metric.of} if metric.of else {})}


def page() -> str:
    """docs/logs.md."""
    return "\n".join([HEAD, *(line for event in EVENTS for line in _section(event)), *_stream(), ""])


def _section(event: str) -> Iterator[str]:
    yield from ("", f"## {event}", "", f"{EVENTS[event][0].upper()}{EVENTS[event][1:]}.", "")  # type: ignore[index]  # event is one of its keys
    yield from ("| metric | type | unit | meaning | out of | arms | since |", "|---|---|---|---|---|---|--:|")
    for metric in declared(event).values():
        arms = "all" if metric.arms == ALL else ", ".join(metric.arms)
        of = f"`{metric.of}`" if metric.of else ""
        unit, meaning = metric.unit or "", metric.meaning.replace("|", "\\|")
        yield f"| `{metric.name}` | {metric.kind} | {unit} | {meaning} | {of} | {arms} | {metric.since} |"


def _stream() -> Iterator[str]:
    yield from ("", "## The table on the terminal", "")
    yield STREAM
    yield from ("", "| column | metric |", "|---|---|", "| step | the optimizer step, 1 after the first |")
    yield from (f"| {metric.heading} | `{metric.name}` |" for metric in COLUMNS)


assert {metric.event for metric in METRICS} == set(EVENTS), "every event is explained"
