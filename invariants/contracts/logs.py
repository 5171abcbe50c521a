"""What writes and reads logs, tables them and plots them: what it takes and returns, and what a setting says of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from invariants.contracts.claims import Claims
from reference import Intervention

Kind = Literal["float", "int", "str", "bool", "object"]
View = Literal["trained", "deployed"]
ARMS: tuple[Intervention, ...] = ("none", "erase", "route")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One name that a log may hold, and what it stands for."""

    name: str
    event: str = "step"
    """The kind of line that has it: "run" once before all others, "step" at every step, "final" once at the end; any
    other now and then."""
    kind: Kind = "float"
    """A float may be NaN or infinite. An object is what JSON holds, of finite numbers."""
    unit: str = ""
    meaning: str = ""
    arms: tuple[Intervention, ...] = ARMS
    """Those in which it is defined; in others it is None."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LogEvent:
    """One line; a name that is left out is None."""

    event: str
    step: int
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedRun:
    """A run that has come to its end, and everything that it logs, in order."""

    intervention: Intervention
    steps: int
    events: tuple[LogEvent, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadLog:
    """What a reader finds in a log."""

    events: Sequence[LogEvent]
    """All, or those before the first damage."""
    complete: bool
    """Whether the run has come to its end and nothing is lost."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenLog:
    """What a released writer wrote, and what it must be read to for ever."""

    text: bytes
    events: tuple[LogEvent, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ResultRun:
    """A finished run, as tables and plots take it: a share of hacks for every step, None where it was not measured."""

    name: str
    intervention: Intervention
    seed: int
    config: str
    """Runs are comparable if this is equal."""
    hack: tuple[float | None, ...]
    """As trained."""
    hack_deployed: tuple[float | None, ...]
    """With the quarantine ablated; where there is none, as trained."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta:
    """A difference that a table shows: some runs of an arm minus vanilla runs."""

    runs: tuple[str, ...]
    """Names; one, or several that are averaged."""
    against: tuple[str, ...]
    """Names of the vanilla runs; none for a run that has no partner."""
    view: View
    hack: float | None
    """None where there is no partner."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """A line of a plot over steps; of one run, or of several that are averaged."""

    runs: tuple[str, ...]
    view: View
    primary: bool
    """Whether it is what the plot shows of its runs; others are pale beside it."""
    points: tuple[tuple[int, float], ...]
    """(step, share of hacks), steps counted from 0; none where nothing was measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Logs:
    """Whatever of it there is; what is left out is not looked at."""

    write: Callable[[LoggedRun], bytes] | None = None
    read: Callable[[bytes], ReadLog] | None = None
    """May raise any exception that says what is wrong, for bytes that nobody has written."""
    columns: Callable[[], Sequence[Column]] | None = None
    """All that the writer may write today, in its order."""
    deltas: Callable[[Sequence[ResultRun]], Sequence[Delta]] | None = None
    """The table of differences to vanilla."""
    series: Callable[[Sequence[ResultRun]], Sequence[Series]] | None = None
    """The plot of hacks over steps."""


LogsFactory = Callable[[], Logs]
"""Makes them anew for every case."""

TYPICAL = (
    Column(name="seed", event="run", kind="int"), Column(name="config", event="run", kind="object"),
    Column(name="loss", unit="nats"), Column(name="hack", unit="share"), Column(name="fired", kind="int"),
    Column(name="hack_deployed", unit="share", arms=("route",)), Column(name="text", event="warning", kind="str"),
    Column(name="hacked", event="final", kind="bool"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LogSetting:
    """What was released of a log."""

    columns: tuple[Column, ...] = ()
    """Those of the last release, event by event in their order. Runs that are written have these, or typical ones if
    none are named."""
    frozen: tuple[FrozenLog, ...] = ()
    """Logs of releases."""
    checked: bool = True
    """Whether a changed byte is to be noticed; otherwise only what was cut off."""
    label: str = "logs"
    claims: Claims = None
