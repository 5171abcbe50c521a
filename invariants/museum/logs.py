"""What goes wrong in logs, tables and plots: each broken one overrides one method."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from invariants.contracts import Delta, ResultRun
from invariants.contracts.logs import View
from invariants.museum.logbook import LATER, RELEASED, SETTING, VIEWS, Logbook, with_column, with_meaning
from invariants.museum.subjects import exhibit
from invariants.subject import Subject


def broken_log(
    name: str, *, caught_by: str, bug: int | None = None, also: Mapping[str, str] | None = None
) -> Callable[[type[Logbook]], type[Logbook]]:
    """Puts a log on show."""

    def show(broken: type[Logbook]) -> type[Logbook]:
        exhibit(name, lambda n: Subject(name=n, logs={SETTING: lambda: broken().logs()}), caught_by=caught_by, bug=bug,
                also=also)  # fmt: skip
        return broken

    return show


@broken_log("null is written as 0", caught_by="logs.round_trip")
class NullIsZero(Logbook):
    def cell(self, value: Any) -> Any:
        return 0 if value is None else super().cell(value)


@broken_log("numbers of six digits", caught_by="logs.round_trip")
class SixDigits(Logbook):
    def cell(self, value: Any) -> Any:
        return super().cell(float(f"{value:.6g}") if isinstance(value, float) else value)


@broken_log("whatever is whole is complete", caught_by="logs.truncation")
class WholeIsComplete(Logbook):
    def complete(self, ended: bool, text: bytes) -> bool:
        return text.endswith(b"\n")


@broken_log("the piece of a last line is mended", caught_by="logs.truncation")
class MendedPiece(Logbook):
    def intact(self, body: bytes, checksum: bytes) -> bool:
        return super().intact(body, checksum) or not checksum

    def lines(self, text: bytes) -> list[bytes]:
        *lines, rest = text.split(b"\n")
        cells = rest.rstrip(b', "]').count(b",")
        return [*lines, rest.rstrip(b', "') + b"] "] if cells > 2 and not rest.endswith(b"]") else lines


@broken_log("a checksum that nobody compares", caught_by="logs.damage")
class Unchecked(Logbook):
    def intact(self, body: bytes, checksum: bytes) -> bool:
        try:
            return isinstance(json.loads(body), list)
        except ValueError:
            return False


@broken_log("lines that do not know their place", caught_by="logs.damage")
class AnyPlace(Logbook):
    def in_place(self, own: int, number: int) -> bool:
        return True


@broken_log("only lines of today's length are read", caught_by="logs.reads_released")
class TodayOnly(Logbook):
    def values(self, event: str, cells: Sequence[Any]) -> dict[str, Any]:
        if len(cells) != len(self.of(event)):
            raise ValueError(f"{event} has {len(cells)} cells, and not {len(self.of(event))}")
        return super().values(event, cells)


@broken_log(
    "a column inserted in the middle",
    caught_by="logs.columns_appended",
    bug=37,
    also={"logs.reads_released": "cells are read by their place, so that those of an old log are the neighbours'"},
)
class Inserted(Logbook):
    columns = with_column(RELEASED, 3, LATER[0])


@broken_log("a name used again for another quantity", caught_by="logs.names_keep_meaning", bug=38)
class NameUsedAgain(Logbook):
    columns = (*with_meaning(RELEASED, "rew_s", unit="s", meaning="seconds of grading"), *LATER)


@broken_log("a name for two columns", caught_by="logs.names_keep_meaning")
class TwoOfAName(Logbook):
    columns = (*RELEASED, *LATER, RELEASED[3])


@broken_log("deltas of projected runs, by their name", caught_by="logs.every_arm", bug=36)
class ProjectedOnly(Logbook):
    arms = ("erase",)


@broken_log("a mean over seeds against one of them", caught_by="logs.same_seeds", bug=40)
class MeanAgainstOne(Logbook):
    def deltas(self, runs: Sequence[ResultRun]) -> list[Delta]:
        return [*super().deltas(runs), *(self.mean_of(arm, runs, view) for arm in self.arms for view in VIEWS)]

    def mean_of(self, arm: str, runs: Sequence[ResultRun], view: View) -> Delta:
        first = next(run for run in runs if run.intervention == "none")
        ours = [run for run in runs if run.intervention == arm and run.config == first.config]
        values = self.measured([self.mean(run, view) for run in ours])
        against = self.mean(first, view)
        hack = sum(values) / len(values) - against if against is not None else None
        return Delta(runs=tuple(run.name for run in ours), against=(first.name,), view=view, hack=hack)


@broken_log("nulls count as 0 in a mean", caught_by="logs.deltas")
class NullCounts(Logbook):
    def measured(self, shares: Sequence[float | None]) -> list[float]:
        return [share or 0.0 for share in shares]


@broken_log("routing drawn from its hacks in training", caught_by="logs.deployed_is_primary", bug=39)
class DrawnAsTrained(Logbook):
    def primary(self, run: ResultRun) -> View:
        return "trained"
