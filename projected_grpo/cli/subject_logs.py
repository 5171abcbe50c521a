"""This package's logs, tables and plots, for the suite."""

import json
import tempfile
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import polars as pl

from invariants import Column, Delta, FrozenLog, LogEvent, LoggedRun, Logs, LogSetting, ReadLog, ResultRun, Series
from invariants.contracts.logs import LogsFactory, View
from projected_grpo.logs import METRICS, LogWriter, parse_all
from projected_grpo.results import run as results
from projected_grpo.results.plots import series as plotted
from projected_grpo.results.tables import results_of

VIEWS: dict[View, str] = {"trained": "hack", "deployed": "hack_deployed"}
MODELS: dict[str, View] = {"as trained": "trained", "as deployed": "deployed"}


def logs() -> dict[LogSetting, LogsFactory]:
    """Held against the last release, of which the wheel has the declaration and a log under regression."""
    return {LogSetting(columns=of_release(), frozen=released()): made}


def made() -> Logs:
    """All parts."""
    return Logs(write=write, read=read, columns=columns, deltas=deltas, series=series)


def columns() -> tuple[Column, ...]:
    """Every metric."""
    return tuple(
        Column(name=m.name, event=m.event, kind=m.kind, unit=m.unit, meaning=m.meaning, arms=m.arms) for m in METRICS
    )


def of_release() -> tuple[Column, ...]:
    """Every metric of the last release."""
    schemas = [json.loads(path.read_text(encoding="utf-8")) for path in (files("regression") / "schema").iterdir()]
    last = max(schemas, key=lambda schema: int(schema["version"]))
    names = ("name", "kind", "unit", "meaning")
    return tuple(
        Column(event=event, arms=tuple(metric["arms"]), **{name: metric[name] for name in names})
        for event, metrics in last["events"].items()
        for metric in sorted(metrics, key=lambda metric: int(metric["order"]))
    )


def released() -> tuple[FrozenLog, ...]:
    """Logs of releases, with what they hold."""
    found = []
    for place in (files("regression") / "releases").iterdir():
        if (place / "expected.json").is_file():
            lines = json.loads((place / "expected.json").read_text(encoding="utf-8"))["lines"]
            events = tuple(LogEvent(event=e["event"], step=e["step"], values=e["values"]) for e in lines)
            found.append(FrozenLog(text=(place / "log.jsonl").read_bytes(), events=events))
    return tuple(found)


def write(run: LoggedRun) -> bytes:
    """A run's log."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        with LogWriter(path, arm=run.intervention) as log:
            for event in run.events:
                log.write(event.event, step=event.step, **event.values)
        return path.read_bytes()


def read(text: bytes) -> ReadLog:
    """What stands before the first damage."""
    found = parse_all(text)
    events = [LogEvent(event=entry.event, step=entry.step, values=entry.values) for entry in found.entries]
    return ReadLog(events=events, complete=found.complete)


def as_read(run: ResultRun) -> results.LoggedRun:
    """A run as the reader of logs would give it."""
    steps = range(1, len(run.hack) + 1)
    looks = [(step, share) for step, share in zip(steps, run.hack_deployed, strict=True) if share is not None]
    own = run.intervention == "route"
    return results.LoggedRun(
        source=Path(run.name), format="v3", intervention=run.intervention, seed=run.seed,
        settings=results.Settings(preset=run.config),
        steps=pl.DataFrame({"step": steps, "hack_student": run.hack}, schema_overrides={"hack_student": pl.Float64}),
        evaluations=pl.DataFrame(
            {"step": [step for step, _ in looks if own], "hack_deployed": [share for _, share in looks if own]},
            schema={"step": pl.Int64, "hack_deployed": pl.Float64},
        ),
        complete=True,
    )  # fmt: skip


def deltas(runs: Sequence[ResultRun]) -> list[Delta]:
    """The table of paired differences, and the runs that have no partner."""
    found = results_of([as_read(run) for run in runs])
    paired = [
        Delta(runs=(row["source"],), against=tuple(row["vanilla"]), view=view, hack=row[f"d_{name}"])
        for row in found.paired.iter_rows(named=True)
        for view, name in VIEWS.items()
    ]
    alone = [
        Delta(runs=(row["source"],), against=(), view=view, hack=None)
        for row in found.unpaired.iter_rows(named=True)
        for view in VIEWS
    ]
    return paired + alone


def series(runs: Sequence[ResultRun]) -> list[Series]:
    """The curves of hacks over steps."""
    data = plotted([as_read(run) for run in runs], {})
    return [
        Series(
            runs=(line.source,), view=MODELS[curve.model], primary=curve.primary,
            points=tuple((s - 1, v) for s, v in zip(line.steps, line.values, strict=True) if v is not None),
        )
        for arm in data.arms
        for panel in arm.panels
        for curve in panel.curves
        if curve.key.startswith("hack") and " under " not in curve.key
        for line in curve.lines
    ]  # fmt: skip
