"""How a run judges: every verdict, from subjects a few lines long."""

import math
import re
from dataclasses import replace

import pytest
import torch

from invariants import (
    ExtractionSetting,
    SplitSetting,
    StepSetting,
    Subject,
    SubjectContractError,
    SuiteError,
    UnknownInvariantError,
    Verdict,
    all_but,
    verify,
)
from invariants.cases import build_cases
from invariants.errors import UnusableTapeError
from invariants.measurement import Measurement
from invariants.registry import all_invariants, invariant
from invariants.runner import judge
from invariants.trials import SplitTrial
from reference import SplitRule, Tape


def split(g, V):
    removed = V.T @ torch.relu(V @ g)
    return g - removed, removed


def leaky(g, V):
    kept, removed = split(g, V)
    return kept, 1.001 * removed


def verdict(subject, tape, id="split.conservation", **options):
    (result,) = verify(subject, tape=tape, only=[id], **options).results
    return result


def test_only_three_verdicts_are_green():
    assert {v for v in Verdict if v.green} == {Verdict.HOLDS, Verdict.EXPECTED_VIOLATION, Verdict.NOT_APPLICABLE}
    assert len(Verdict) == 7


def test_holds(small_tape):
    result = verdict(Subject(name="mine", split=split), small_tape)
    assert result.verdict is Verdict.HOLDS
    assert 0 < result.worst.measured.margin <= 1
    assert result.occurred["something removed"] > 0


def test_violated_names_the_smallest_case(small_tape):
    result = verdict(Subject(name="mine", split=leaky), small_tape)
    assert result.verdict is Verdict.VIOLATED
    assert result.worst.counterexample.startswith("r=1, k=1: g=[1.0], V=[[1.0]]: observed 0.001, allowed ")


def test_an_expected_violation_is_green(small_tape):
    subject = Subject(name="mine", split=leaky)
    report = verify(
        subject, tape=small_tape, only=["split.conservation"], expected_violations={"split.conservation": "known"}
    )
    assert report.ok
    assert report.results[0].verdict is Verdict.EXPECTED_VIOLATION
    assert report.results[0].worst.reason == "known"


def test_an_expected_violation_that_holds_is_red(small_tape):
    subject = Subject(name="mine", split=split)
    report = verify(
        subject, tape=small_tape, only=["split.conservation"], expected_violations={"split.conservation": "?"}
    )
    assert not report.ok
    assert report.results[0].verdict is Verdict.UNEXPECTEDLY_HOLDS


def test_an_expectation_that_never_applied_is_red(small_tape):
    expected = {"split.additivity": "relu"}
    report = verify(Subject(name="mine", split=split), tape=small_tape, only=["split"], expected_violations=expected)
    assert not report.ok
    additivity = next(r for r in report.results if r.invariant.id == "split.additivity")
    assert additivity.verdict is Verdict.UNEXPECTEDLY_HOLDS
    assert additivity.worst.reason == "expected to be violated (relu), but: relu is not additive"


def test_an_expectation_can_be_for_one_setting(small_tape):
    settings = {SplitSetting(): leaky, SplitSetting(overshoot=1.5): lambda g, V: (g, split(g, V)[1])}
    subject = Subject(name="mine", split=settings)
    expected = {"split.conservation @ one_sided, overshoot 1.5": "known"}
    (result,) = verify(subject, tape=small_tape, only=["split.conservation"], expected_violations=expected).results
    assert [s.verdict for s in result.settings] == [Verdict.VIOLATED, Verdict.EXPECTED_VIOLATION]
    with pytest.raises(UnknownInvariantError, match="no_such"):
        verify(subject, tape=small_tape, expected_violations={"split.conservation @ no_such": "known"})


def test_families_are_no_claims_and_no_expectations(small_tape):
    with pytest.raises(UnknownInvariantError, match="'split'"):
        verify(Subject(name="mine", split=split, claims={"split"}), tape=small_tape)
    with pytest.raises(UnknownInvariantError, match="'split'"):
        verify(Subject(name="mine", split=split), tape=small_tape, expected_violations={"split": "?"})


def test_a_hypothesis_that_fails_is_not_applicable_with_its_reason(small_tape):
    subject = Subject(name="mine", split={SplitSetting(gate="one_sided"): split})
    result = verdict(subject, small_tape, "split.additivity")
    assert result.verdict is Verdict.NOT_APPLICABLE
    assert result.worst.reason == "relu is not additive"


def test_a_subject_that_removes_nothing_is_vacuous_and_red(small_tape):
    subject = Subject(name="idle", split=lambda g, V: (g.clone(), torch.zeros_like(g)))
    report = verify(subject, tape=small_tape, only=["split.conservation"])
    assert report.results[0].verdict is Verdict.VACUOUS
    assert "something removed" in report.results[0].worst.reason
    assert not report.ok


def test_an_exception_in_the_subject_is_an_error_that_names_the_case(small_tape):
    def broken(g, V):
        raise RuntimeError("boom\nand more")

    result = verdict(Subject(name="mine", split=broken), small_tape)
    assert result.verdict is Verdict.ERROR
    assert re.fullmatch(
        r"RuntimeError: boom at test_verdicts\.py:\d+ \(case: tape, step 0, first\)", result.worst.reason
    )


def test_a_subject_that_ends_the_interpreter_is_an_error(small_tape):
    def leaves(g, V):
        raise SystemExit(0)

    assert verdict(Subject(name="mine", split=leaves), small_tape).verdict is Verdict.ERROR


def test_an_empty_choice_and_a_seed_out_of_range_are_refused(small_tape):
    with pytest.raises(UnknownInvariantError, match="No invariant was named"):
        verify(Subject(name="mine", split=split), tape=small_tape, only=[])
    with pytest.raises(SuiteError, match="seed"):
        verify(Subject(name="mine", split=split), tape=small_tape, seed=10**20)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda g: g, "split must return (kept, removed)"),
        (lambda g: (g[:-1], g), "split returned kept as"),
        (lambda g: (g, g.float()), "split returned removed as"),
    ],
)
def test_a_broken_contract_is_an_error_in_one_sentence(small_tape, returned, sentence):
    result = verdict(Subject(name="mine", split=lambda g, V: returned(g)), small_tape)
    assert result.verdict is Verdict.ERROR
    assert result.worst.reason.startswith(sentence)


def test_what_is_not_claimed_is_measured_and_no_violation(small_tape):
    subject = Subject(name="mine", split=leaky, claims=all_but("split.conservation"))
    result = verdict(subject, small_tape)
    assert result.verdict is Verdict.NOT_APPLICABLE
    assert result.worst.reason == "not claimed; it was violated"
    assert result.worst.measured.margin > 1


def test_a_setting_claims_for_itself(small_tape):
    claiming, modest = SplitSetting(), SplitSetting(claims=frozenset())
    assert verdict(Subject(name="a", split={claiming: leaky}), small_tape).verdict is Verdict.VIOLATED
    assert verdict(Subject(name="b", split={modest: leaky}), small_tape).verdict is Verdict.NOT_APPLICABLE


def test_the_worst_setting_decides(small_tape):
    both = {SplitSetting(): split, SplitSetting(subtracts_stored=True): leaky}
    result = verdict(Subject(name="mine", split=both), small_tape)
    assert result.verdict is Verdict.VIOLATED
    assert [s.verdict for s in result.settings] == [Verdict.HOLDS, Verdict.VIOLATED]


def test_nothing_applicable_is_red(small_tape):
    report = verify(Subject(name="empty"), tape=small_tape)
    assert report.applicable == 0
    assert all(result.verdict is Verdict.NOT_APPLICABLE for result in report.results)
    assert not report.ok


def test_the_same_seed_gives_the_same_report(small_tape):
    subject = Subject(name="mine", split=split)
    first, second = (verify(subject, tape=small_tape, only=["split"], seed=3) for _ in range(2))
    assert first == second
    assert first != verify(subject, tape=small_tape, only=["split"], seed=4)


def test_a_run_leaves_the_random_state_of_the_process_alone(small_tape):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    verify(Subject(name="mine", split=split), tape=small_tape, only=["split"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "options",
    [{"only": ["split.typo"]}, {"expected_violations": {"split.typo": "x"}, "only": ["split"]}],
)
def test_an_unknown_id_is_refused_by_name(small_tape, options):
    with pytest.raises(UnknownInvariantError, match=r"split\.typo"):
        verify(Subject(name="mine", split=split), tape=small_tape, **options)


def test_a_claim_of_an_unknown_id_is_refused(small_tape):
    with pytest.raises(UnknownInvariantError, match=r"no\.such"):
        verify(Subject(name="mine", split=split, claims={"no.such"}), tape=small_tape)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": "x", "split": 3},
        {"name": "x", "split": {"one_sided": split}},
        {"name": "x", "split": {}},
        {"name": "x", "dtype": torch.int64},
        {"name": "x", "dtype": "float64"},
        {"name": "x", "claims": "split.conservation"},
        {"name": "x", "split": {SplitSetting(gate="nosuch"): split}},
        {"name": "x", "split": {SplitSetting(claims="split.span"): split}},
        {"name": "x", "routed_step": {StepSetting(interventions=("none", "rout")): split}},
        {"name": "x", "routed_step": {StepSetting(interventions="route"): split}},
        {"name": "x", "extraction": {ExtractionSetting(floors=("relativ",)): split}},
        {"name": "x", "routed_step": {StepSetting(clip="nosuch"): split}},
        {"name": "x", "routed_step": {StepSetting(rule=SplitRule(gate="nosuch")): split}},
    ],
)
def test_a_subject_that_means_nothing_is_refused(arguments):
    with pytest.raises(SubjectContractError):
        Subject(**arguments)


def test_every_invariant_says_what_it_is():
    known = all_invariants()
    assert len(known) == len({i.id for i in known}) >= 25
    for i in known:
        assert i.statement.endswith(".")
        assert i.fails_when.endswith(".")
        assert i.likely_cause.endswith(".")
        assert i.events, f"{i.id} could pass without having seen anything"


def test_an_invariant_without_its_texts_or_with_a_taken_id_is_refused():
    def nameless(trial):
        """Only a statement."""

    with pytest.raises(TypeError, match="Fails when"):
        invariant("split.new", theorem="T1", capability="split")(nameless)
    original = all_invariants()[0]
    with pytest.raises(TypeError, match="taken"):
        invariant(original.id, theorem="T1", capability="split")(original.check)


def malformed(tape, **changes):
    parts = {"gradients": dict(tape.gradients), "basis": dict(tape.basis), "start": dict(tape.start)}
    for part, change in changes.items():
        parts[part].update(change(parts[part]))
    return Tape(**parts)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"gradients": lambda g: {"first": g["first"] * torch.nan}}, "NaN or infinity"),
        ({"gradients": lambda g: {"first": g["first"][:2]}}, "they must be (2, r), (k, r) and (r,)"),
        ({"gradients": lambda g: {n: t[:0] for n, t in g.items()}}, "they must be (0, r)"),
        ({"gradients": lambda g: {n: 0 * t for n, t in g.items()}}, "All gradients of the tape are zero"),
        ({"basis": lambda b: {"first": b["first"][:, :5]}}, "they must agree in r"),
        ({"basis": lambda b: {"first": 1.5 * b["first"]}}, "neither orthonormal nor zero"),
        ({"basis": lambda b: {"first": b["first"][:0]}}, "empty for every module"),
        ({"basis": lambda b: {"third": b["first"]}}, "do not name the same modules"),
        ({"start": lambda s: {"first": s["first"][:3]}}, "they must be (3, r), (k, r) and (r,)"),
    ],
)
def test_a_tape_that_no_run_can_have_recorded_is_refused_and_nobody_accused(small_tape, changes, sentence):
    with pytest.raises(UnusableTapeError) as caught:
        verify(Subject(name="mine", split=split), tape=malformed(small_tape, **changes))
    assert sentence in str(caught.value)


def test_a_subject_that_skips_a_test_is_an_error_and_no_skip(small_tape):
    def skipping(g, V):
        pytest.importorskip("a_module_that_is_not_there")
        return g, torch.zeros_like(g)

    report = verify(Subject(name="skipping", split=skipping), tape=small_tape, only=["split.span"])
    assert report.results[0].verdict is Verdict.ERROR
    assert not report.ok


class Blurred:
    """A check of which some cases cannot fail; it counts an event in those and, where it `tells`, in the others."""

    def __init__(self, tells: bool, occurs: bool = True) -> None:
        self.tells, self.occurs = tells, occurs

    def __call__(self, trial):
        sure = trial.case.size % 2 == 0
        seen = {"event": (self.tells if sure else True) and self.occurs}
        return Measurement(0.0, 1.0 if sure else math.inf, trial.case.label, seen, scale=2.0)


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (Blurred(tells=True), Verdict.HOLDS),
        (Blurred(tells=False), Verdict.NOT_APPLICABLE),
        (Blurred(tells=True, occurs=False), Verdict.VACUOUS),
    ],
)
def test_what_occurs_only_where_nothing_can_fail_is_no_evidence(small_tape, check, verdict):
    original = next(i for i in all_invariants() if i.id == "split.span")
    toy = replace(original, check=check, events=("event",))
    cases = build_cases(small_tape, 0, "quick").split
    trials = [(case, SplitTrial(split, setting=SplitSetting(), case=case, dtype=torch.float64)) for case in cases]
    assert {case.size % 2 for case in cases} == {0, 1}
    result = judge(toy, "one_sided", trials)
    assert result.verdict is verdict
    if verdict is Verdict.NOT_APPLICABLE:
        assert result.reason.startswith("not judged")
