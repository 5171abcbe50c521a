"""The registry of invariants: a check is declared by decorating a function, and found by its id."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from invariants.contracts import Capability, Setting
from invariants.errors import UnknownInvariantError
from invariants.measurement import Measurement

Check = Callable[[Any], Measurement | None]
"""Takes a trial (one subject, setting and case); None says that the case does not meet the hypothesis."""

Applies = Callable[[Any], str | None]
"""Why the theorem says nothing about a setting, or None where it does."""

CheckFunction = TypeVar("CheckFunction", bound=Check)


@dataclass(frozen=True, kw_only=True)
class Invariant:
    """A named statement with the theorem that it rests on, the hypotheses, and the check that measures it."""

    id: str
    theorem: str
    statement: str
    fails_when: str
    likely_cause: str
    capability: Capability
    check: Check
    applies: Applies
    reads: str
    """What a subject must show for the check to have something to look at."""
    events: tuple[str, ...]
    """What must have occurred in some case, or the run was vacuous."""
    per: Literal["case", "setting"]
    """Whether the check looks at every case, or makes its own input once per setting."""

    @property
    def family(self) -> str:
        """What stands before the dot of the id."""
        return self.id.partition(".")[0]


_REGISTRY: dict[str, Invariant] = {}


def always(setting: Setting) -> str | None:
    """The theorem has no hypothesis on the setting."""
    return None


def invariant(
    id: str,
    *,
    theorem: str,
    capability: Capability,
    applies: Applies = always,
    events: tuple[str, ...] = (),
    reads: str = "what this check reads",
    per: Literal["case", "setting"] = "case",
) -> Callable[[CheckFunction], CheckFunction]:
    """Registers a check. Its docstring's first paragraph is the statement; it must end with two paragraphs that
    begin `Fails when:` and `Likely cause:`, which failures show."""

    def register(check: CheckFunction) -> CheckFunction:
        paragraphs = [" ".join(p.split()) for p in inspect.cleandoc(check.__doc__ or "").split("\n\n")]
        *body, fails_when, likely_cause = paragraphs if len(paragraphs) >= 3 else ["", "", ""]
        if not (body[0] and fails_when.startswith("Fails when: ") and likely_cause.startswith("Likely cause: ")):
            raise TypeError(f"The docstring of {id} needs a statement, then 'Fails when: ', then 'Likely cause: '.")
        if id in _REGISTRY:
            raise TypeError(f"The id {id} is taken.")
        _REGISTRY[id] = Invariant(
            id=id, theorem=theorem, statement=body[0], fails_when=fails_when.removeprefix("Fails when: "),
            likely_cause=likely_cause.removeprefix("Likely cause: "), capability=capability, check=check,
            applies=applies, reads=reads, events=events, per=per,
        )  # fmt: skip
        return check

    return register


def all_invariants() -> tuple[Invariant, ...]:
    """Every registered invariant, family by family, in the order of declaration."""
    return tuple(_REGISTRY.values())


def selected(only: Iterable[str] | None) -> tuple[Invariant, ...]:
    """The invariants named by `only`: ids, or families such as "split"; all for None.

    Raises UnknownInvariantError for a name that fits none.
    """
    known = all_invariants()
    if only is None:
        return known
    wanted = tuple(only)
    if not wanted:
        raise UnknownInvariantError(
            "No invariant was named; name an id or a family, or leave the choice out to run all."
        )
    for name in wanted:
        if not any(name in (i.id, i.family) for i in known):
            raise UnknownInvariantError(
                f"No invariant or family is called {name!r}; `projected-grpo invariants` lists all {len(known)}."
            )
    return tuple(i for i in known if i.id in wanted or i.family in wanted)


def check_ids(ids: Iterable[str], where: str) -> None:
    """Raises UnknownInvariantError for what is no id; families are not, since nobody claims what is yet to come."""
    known = {i.id for i in all_invariants()}
    for id in ids:
        if id not in known:
            raise UnknownInvariantError(
                f"{where}: no invariant has the id {id!r}; `projected-grpo invariants` lists all {len(known)}."
            )


def all_but(*ids: str) -> frozenset[str]:
    """The claims of a subject that keeps every invariant except these; raises UnknownInvariantError."""
    return frozenset(i.id for i in all_invariants()) - frozenset(i.id for i in (selected(ids) if ids else ()))
