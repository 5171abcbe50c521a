"""Violations that are known: what is expected to fail, why, on whose behalf, and until when.

Expectations are strict. One of which nothing comes is red, and one that has expired excuses nothing.

    [[expected]]
    id = "optimizer.keeps_sum"
    reason = "AdamW is not linear"
    setting = "gradient / clip before / AdamW"    # left out: every one that no other entry names
    owner = "kim"                                 # whom to ask
    expires = 2027-06-30                          # the last day on which it excuses
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path
from typing import Any

from invariants.errors import ExpectationError
from invariants.registry import check_ids


@dataclass(frozen=True)
class Expectation:
    """An invariant that is known to be violated.

    Raises ExpectationError for a text that is empty or none, and for a date that is none.
    """

    id: str
    reason: str
    setting: str | None = None
    """The label of the one setting that is meant; None means all that no other names."""
    owner: str | None = None
    expires: date | None = None
    """The last day on which it excuses."""
    source: str = field(default="expected violations", compare=False, repr=False)
    """Where it was written down, for messages about it."""

    def __post_init__(self) -> None:
        for name in ("id", "reason", "setting", "owner"):
            value = getattr(self, name)
            if value is None and name in ("setting", "owner"):
                continue
            if not isinstance(value, str) or not value.strip():
                raise ExpectationError(f"{self.source}: {name} must be a text that says something, not {value!r}.")
        if self.expires is not None and (not isinstance(self.expires, date) or isinstance(self.expires, datetime)):
            raise ExpectationError(
                f"{self.source}: expires must be a date such as 2027-06-30, without quotes and without a time, "
                f"not {self.expires!r}."
            )

    @classmethod
    def at(cls, address: str, reason: str, source: str = "expected violations") -> "Expectation":
        """From "id", or "id @ setting"."""
        id, at, setting = str(address).partition(" @ ")
        return cls(id, reason, setting=setting if at else None, source=source)

    @property
    def address(self) -> str:
        """The id, or "id @ setting"."""
        return self.id if self.setting is None else f"{self.id} @ {self.setting}"

    def expired(self, today: date) -> bool:
        """Whether its last day has passed."""
        return self.expires is not None and today > self.expires

    def __str__(self) -> str:
        owned = [*([self.owner] if self.owner else []), *([f"until {self.expires}"] if self.expires else [])]
        return f"{self.reason} ({', '.join(owned)})" if owned else self.reason


Expected = Mapping[str, str] | Iterable[Expectation]
"""What is expected to be violated: id, or "id @ setting", -> reason; or a list of Expectations."""


def expectations(given: Expected | None) -> tuple[Expectation, ...]:
    """What was given, as Expectations: those for every setting first, so that one for a single setting goes before it.

    Raises:
        ExpectationError: a reason is missing, or two speak of the same.
        UnknownInvariantError: an id is none.
    """
    listed = [Expectation.at(*pair) for pair in given.items()] if isinstance(given, Mapping) else list(given or ())
    seen: dict[str, Expectation] = {}
    for each in listed:
        if not isinstance(each, Expectation):
            raise ExpectationError(
                f"expected violations: {each!r} is no Expectation; pass a mapping from ids to reasons, or Expectations."
            )
        check_ids([each.id], each.source)
        if each.address in seen:
            first = seen[each.address].source
            where = each.source if first == each.source else f"{each.source} and {first}"
            raise ExpectationError(f"{where}: {each.address!r} is expected twice; leave one of them out.")
        seen[each.address] = each
    return tuple(sorted(listed, key=lambda each: each.setting is not None))


KEYS = tuple(f.name for f in fields(Expectation) if f.name != "source")


def read_expectations(path: str | Path) -> tuple[Expectation, ...]:
    """Reads a TOML file with an [[expected]] table for each known violation.

    Raises:
        ExpectationError: the file can't be read, is no TOML, or an entry is incomplete, mistyped or repeated.
        UnknownInvariantError: an entry names no invariant.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExpectationError(f"{path} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ExpectationError(f"{path} is no text in UTF-8, as TOML must be.") from error
    except tomllib.TOMLDecodeError as error:
        raise ExpectationError(f"{path} is not valid TOML: {error}.") from error
    for key in document:
        if key != "expected":
            raise ExpectationError(f"{path}: {key!r} is not known at the top; every entry begins with [[expected]].")
    entries = document.get("expected", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ExpectationError(f"{path}: `expected` must be a list of tables; every entry begins with [[expected]].")
    return expectations(_entry(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1))


def _entry(entry: Mapping[str, Any], source: str) -> Expectation:
    for key in entry:
        if key not in KEYS:
            raise ExpectationError(f"{source}: {key!r} is not known; there are {', '.join(KEYS)}.")
    for key in ("id", "reason"):
        if key not in entry:
            raise ExpectationError(f"{source}: {key} is missing.")
    return Expectation(**entry, source=source)
