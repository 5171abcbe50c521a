"""The rule of append-only: what was released of the declaration of logs, held against today's.

    python -m regression --freeze     freezes today's declaration under the version it has; never one that is there

A metric of a released version stays in its event, at its place, with its type, unit, meaning, arms and denominator.
Behind them new ones may follow, of a newer version. A name that is gone is never used again.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projected_grpo.logs import METRICS, SCHEMA, Metric
from projected_grpo.logs.stream import COLUMNS

SCHEMAS = Path(__file__).parent / "schema"
MEANS = ("kind", "unit", "meaning", "arms", "since", "of")  # what a name stands for


@dataclass(frozen=True)
class Declaration:
    """What one version declares: event -> its metrics in their order, and the headings of the stream in theirs."""

    version: int
    events: Mapping[str, tuple[Mapping[str, Any], ...]]
    stream: tuple[tuple[str, str], ...]

    def names(self) -> dict[tuple[str, str], Mapping[str, Any]]:
        """(event, name) -> the metric."""
        return {(event, m["name"]): m for event, metrics in self.events.items() for m in metrics}

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `order` counts within an event."""
        events = {event: [{"order": at, **m} for at, m in enumerate(ms)] for event, ms in self.events.items()}
        return {"version": self.version, "events": events, "stream": [list(pair) for pair in self.stream]}


def declaration(metrics: Iterable[Metric] = METRICS, version: int = SCHEMA) -> Declaration:
    """Of these metrics, today's if none are named."""
    events: dict[str, list[Mapping[str, Any]]] = {}
    for metric in metrics:
        plain = {name: getattr(metric, name) for name in ("name", *MEANS)}
        events.setdefault(metric.event, []).append(plain | {"arms": list(metric.arms)})
    return Declaration(version, {event: tuple(ms) for event, ms in events.items()}, _headings())


def _headings() -> tuple[tuple[str, str], ...]:
    return tuple((metric.heading, metric.name) for metric in COLUMNS)


def released() -> list[Declaration]:
    """Every frozen version, the oldest first."""
    found = []
    for path in sorted(SCHEMAS.glob("v*.json"), key=lambda path: int(path.stem[1:])):
        plain = json.loads(path.read_text(encoding="utf-8"))
        events = {
            event: tuple(
                {k: v for k, v in m.items() if k != "order"} for m in sorted(ms, key=lambda m: int(m["order"]))
            )
            for event, ms in plain["events"].items()
        }
        found.append(Declaration(plain["version"], events, tuple((a, b) for a, b in plain["stream"])))
    return found


def freeze(now: Declaration, folder: Path = SCHEMAS) -> Path:
    """Writes a version down; raises FileExistsError for one that is there already."""
    path = folder / f"v{now.version}.json"
    with path.open("x", encoding="utf-8") as file:
        file.write(json.dumps(now.plain(), indent=1) + "\n")
    return path


def problems(now: Declaration, versions: Iterable[Declaration]) -> list[str]:
    """One sentence for everything that was removed, moved, redefined or used again; empty if columns were only
    appended."""
    found: list[str] = []
    gone: set[tuple[str, str]] = set()  # what some version had, and a later one has not
    last: Declaration | None = None
    versions = sorted(versions, key=lambda each: each.version)
    for version in versions:
        if last is not None:
            gone |= last.names().keys() - version.names().keys()
        found += _against(now, version)
        last = version
    names = now.names()
    found += [f"{event}.{name} is used again, and was gone since an earlier version" for event, name in sorted(
        gone & names.keys())]  # fmt: skip
    if last is not None:
        new = names.keys() - {key for version in versions for key in version.names()}
        early = sorted(key for key in new if names[key]["since"] <= last.version)
        found += [f"{event}.{name} is new, and says that version {last.version} has it" for event, name in early]
    return list(dict.fromkeys(found))


def _against(now: Declaration, then: Declaration) -> Iterator[str]:
    names = now.names()
    for (event, name), old in then.names().items():
        if (new := names.get((event, name))) is None:
            yield f"{event}.{name} was removed, and version {then.version} has it"
            continue
        for what in MEANS:
            if new[what] != old[what]:
                told = f"from {old[what]!r} in version {then.version} to {new[what]!r}"
                yield f"{event}.{name}: {what} was redefined, {told}"
    for event, metrics in then.events.items():
        yield from _order(event, [m["name"] for m in metrics], [m["name"] for m in now.events.get(event, ())], then)
    headings, today = [list(pair) for pair in then.stream], [list(pair) for pair in now.stream]
    yield from _order("the stream", [" ".join(pair) for pair in headings], [" ".join(pair) for pair in today], then)


def _order(where: str, old: list[str], new: list[str], then: Declaration) -> Iterator[str]:
    """Where the first column is that is not what stood there."""
    for at, name in enumerate(old):
        if at >= len(new) or new[at] != name:
            there = f"{new[at]} stands" if at < len(new) else "nothing stands"
            yield f"{where}: {there} in column {at}, where version {then.version} has {name}"
            return
