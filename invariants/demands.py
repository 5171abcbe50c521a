"""What a run demands of its verdicts: which violations it expects, and which checks must not fall silent."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from invariants.errors import ExpectationError, UnknownInvariantError
from invariants.expectations import Expectation, Expected, expectations
from invariants.labels import labels
from invariants.registry import Invariant, all_invariants, check_ids
from invariants.subject import Subject
from invariants.trials import TRIALS
from invariants.verdict import SettingResult, Verdict


@dataclass(frozen=True, kw_only=True)
class Demands:
    """The expectations of a run, and the ids that must have something to say."""

    expected: tuple[Expectation, ...] = ()
    required: frozenset[str] = frozenset()
    today: date = field(default_factory=date.today)

    def applied(self, id: str, results: Sequence[SettingResult]) -> tuple[SettingResult, ...]:
        """The results of one invariant, as they count in this run."""
        turned = as_expected([each for each in self.expected if each.id == id], results, self.today)
        if id in self.required and all(result.verdict is Verdict.NOT_APPLICABLE for result in turned):
            turned = [
                replace(
                    result,
                    verdict=Verdict.VACUOUS,
                    reason=f"required, but not applicable: {result.reason}",
                    silent=True,
                )
                for result in turned
            ]
        return tuple(turned)


def demands(
    subject: Subject,
    chosen: Iterable[Invariant],
    *,
    expected_violations: Expected | None = None,
    required: Collection[str] = (),
    today: date | None = None,
) -> Demands:
    """What is demanded of a run of the chosen invariants, once every name in it is known to be one.

    Raises:
        ExpectationError: an expectation is incomplete or said twice.
        UnknownInvariantError: an expectation, a requirement or a claim of the subject names what isn't there.
    """
    expected = expectations(expected_violations)
    _check_claims(subject)
    _check_settings(subject, expected)
    check_ids(required, "required")
    running = {invariant.id for invariant in chosen}
    for id in required:
        if id not in running:
            raise UnknownInvariantError(f"required: {id!r} is not among the invariants that were chosen to run.")
    return Demands(expected=expected, required=frozenset(required), today=today or date.today())


def _check_claims(subject: Subject) -> None:
    claimed = [setting.claims for capability in TRIALS for setting in subject.settings(capability)]
    for claims in (subject.claims, *claimed):
        check_ids(sorted(claims or ()), f"claims of subject {subject.name!r}")


def _check_settings(subject: Subject, expected: Sequence[Expectation]) -> None:
    needs = {invariant.id: invariant.capability for invariant in all_invariants()}
    for each in expected:
        known = labels(subject.settings(needs[each.id])).values()
        named = {other.setting for other in expected if other.id == each.id}
        if each.setting is None and known and named.issuperset(known):
            raise ExpectationError(
                f"{each.source}: {each.id!r} is expected of every setting of its own; leave the general entry out."
            )
        if each.setting is not None and each.setting not in known:
            there = ", ".join(map(repr, known)) or f"no {needs[each.id]}"
            raise UnknownInvariantError(
                f"{each.source}: {each.address!r} names the setting {each.setting!r}, and subject {subject.name!r} has "
                f"{there}."
            )


def as_expected(expected: Iterable[Expectation], results: Sequence[SettingResult], today: date) -> list[SettingResult]:
    """The results of one invariant, with its violations turned into expected ones.

    Strict: an expectation of which nothing came makes the settings that it speaks of red, and one that has expired
    leaves a violation what it is. One for every setting speaks of those that no other names.
    """
    turned, listed = list(results), list(expected)
    by_name = {each.setting for each in listed}
    rest = [i for i, result in enumerate(results) if result.setting not in by_name]
    for each in listed:
        meant = [i for i, result in enumerate(results) if each.setting == result.setting] if each.setting else rest
        violated = [i for i in meant if results[i].verdict is Verdict.VIOLATED]
        for i in violated:
            turned[i] = _excused(results[i], each, today)
        for i in meant if not violated else []:
            if results[i].verdict in (Verdict.HOLDS, Verdict.NOT_APPLICABLE):
                why = f"expected to be violated ({each}), but: {results[i].reason or 'it holds'}"
                turned[i] = replace(results[i], verdict=Verdict.UNEXPECTEDLY_HOLDS, reason=why, expectation=each)
    return turned


def _excused(result: SettingResult, expectation: Expectation, today: date) -> SettingResult:
    if not expectation.expired(today):
        return replace(result, verdict=Verdict.EXPECTED_VIOLATION, reason=str(expectation), expectation=expectation)
    by = f" by {expectation.owner}" if expectation.owner else ""
    why = f"its expectation{by} expired on {expectation.expires}: {expectation.reason}"
    return replace(result, reason=why, expectation=expectation)
