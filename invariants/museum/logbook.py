"""A log, a table and a plot in plain Python: what the faults of logs are one change away from.

A line is a list in JSON, its number first, and a checksum: [3, "step", 2, 0.5, null] 9ae0daaf. Cells are read by their
place, so that a log of an older version is one whose lines are shorter.
"""

import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from invariants.cases.logs import LAST, LogCase
from invariants.contracts import (
    Column,
    Delta,
    FrozenLog,
    LogEvent,
    LoggedRun,
    Logs,
    LogSetting,
    LogsFactory,
    ReadLog,
    ResultRun,
    Series,
)
from invariants.contracts.logs import View
from reference import Intervention

RELEASED = (
    Column(name="seed", event="run", kind="int", meaning="of everything random"),
    Column(name="config", event="run", kind="object", meaning="what decides the run"),
    Column(name="rew_s", unit="1", meaning="mean reward of the student's rollouts"),
    Column(name="hack", unit="share", meaning="of rollouts that pass and are wrong"),
    Column(name="hack_deployed", unit="share", meaning="the same with the quarantine ablated", arms=("route",)),
    Column(name="fired", kind="int", unit="1", meaning="axes along which the step moves hack-ward"),
    Column(name="text", event="warning", kind="str", meaning="what looks wrong"),
    Column(name="hacked", event="final", kind="bool", meaning="whether the run hacks at its end"),
)
LATER = (Column(name="seconds", unit="s", meaning="the step took"),)  # since the release
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
END = "end"
VIEWS: tuple[View, ...] = ("trained", "deployed")


class Logbook:
    columns: tuple[Column, ...] = (*RELEASED, *LATER)
    arms: tuple[Intervention, ...] = ("erase", "route")

    def of(self, event: str) -> list[Column]:
        return [column for column in self.columns if column.event == event]

    # Writing

    def write(self, run: LoggedRun) -> bytes:
        rows = [[event.event, event.step, *self.cells(event)] for event in run.events]
        return b"".join(self.line([number, *row]) for number, row in enumerate([*rows, [END, run.steps]]))

    def line(self, row: list[Any]) -> bytes:
        body = json.dumps(row, allow_nan=False).encode()
        return body + f" {zlib.crc32(body):08x}\n".encode()

    def cells(self, event: LogEvent) -> list[Any]:
        return [self.cell(event.values.get(column.name)) for column in self.of(event.event)]

    def cell(self, value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return next(word for word, number in WORDS.items() if str(number) == str(value))
        return value

    # Reading

    def read(self, text: bytes) -> ReadLog:
        events: list[LogEvent] = []
        ended = False
        for number, line in enumerate(self.lines(text)):
            body, _, checksum = line.rpartition(b" ")
            if not self.intact(body, checksum):
                break
            own, event, step, *cells = json.loads(body)
            if ended or not self.in_place(own, number):
                ended = False
                break
            if event == END:
                ended = True
            else:
                events.append(LogEvent(event=event, step=step, values=self.values(event, cells)))
        else:
            return ReadLog(events=events, complete=self.complete(ended, text))
        return ReadLog(events=events, complete=False)

    def lines(self, text: bytes) -> list[bytes]:
        return text.split(b"\n")[:-1]

    def intact(self, body: bytes, checksum: bytes) -> bool:
        return checksum == f"{zlib.crc32(body):08x}".encode()

    def in_place(self, own: int, number: int) -> bool:
        return own == number

    def complete(self, ended: bool, text: bytes) -> bool:
        return ended and text.endswith(b"\n")

    def values(self, event: str, cells: Sequence[Any]) -> dict[str, Any]:
        return {c.name: self.number(c, cell) for c, cell in zip(self.of(event), cells, strict=False)}

    def number(self, column: Column, cell: Any) -> Any:
        return WORDS[cell] if column.kind == "float" and isinstance(cell, str) else cell

    # Tables

    def deltas(self, runs: Sequence[ResultRun]) -> list[Delta]:
        treated = [run for run in runs if run.intervention in self.arms]
        return [delta for view in VIEWS for run in treated for delta in self.rows(run, runs, view)]

    def rows(self, run: ResultRun, runs: Sequence[ResultRun], view: View) -> list[Delta]:
        own = self.mean(run, view)
        vanilla = {
            other.name: value
            for other in runs
            if self.comparable(other, run) and (value := self.mean(other, view)) is not None
        }
        hack = own - fmean(vanilla.values()) if vanilla and own is not None else None
        return [Delta(runs=(run.name,), against=tuple(vanilla), view=view, hack=hack)]

    def comparable(self, other: ResultRun, run: ResultRun) -> bool:
        return other.intervention == "none" and (other.seed, other.config) == (run.seed, run.config)

    def mean(self, run: ResultRun, view: View) -> float | None:
        measured = self.measured(self.shares(run, view)[-LAST:])
        return fmean(measured) if measured else None

    def shares(self, run: ResultRun, view: View) -> tuple[float | None, ...]:
        return run.hack if view == "trained" else run.hack_deployed

    def measured(self, shares: Sequence[float | None]) -> list[float]:
        return [share for share in shares if share is not None]

    # Plots

    def series(self, runs: Sequence[ResultRun]) -> list[Series]:
        return [
            Series(runs=(run.name,), view=view, primary=view == self.primary(run), points=self.points(run, view))
            for run in runs
            for view in VIEWS
        ]

    def primary(self, run: ResultRun) -> View:
        return "deployed"

    def points(self, run: ResultRun, view: View) -> tuple[tuple[int, float], ...]:
        return tuple((step, share) for step, share in enumerate(self.shares(run, view)) if share is not None)

    def logs(self) -> Logs:
        return Logs(
            write=self.write, read=self.read, columns=lambda: self.columns, deltas=self.deltas, series=self.series
        )


class AsReleased(Logbook):
    columns = RELEASED


def frozen(case: LogCase) -> FrozenLog:
    """What the release wrote of a run."""
    run = case.run(RELEASED)
    return FrozenLog(text=AsReleased().write(run), events=run.events)


SETTING = LogSetting(
    columns=RELEASED, frozen=tuple(frozen(LogCase(kind="run", seed=seed, steps=3)) for seed in range(2))
)
CORRECT: dict[LogSetting, LogsFactory] = {SETTING: lambda: Logbook().logs()}


def with_column(columns: Sequence[Column], at: int, column: Column) -> tuple[Column, ...]:
    """The columns with another one in between."""
    return (*columns[:at], column, *columns[at:])


def with_meaning(columns: Sequence[Column], name: str, **changes: Any) -> tuple[Column, ...]:
    """The columns, of which one stands for something else."""
    return tuple(replace(column, **changes) if column.name == name else column for column in columns)
