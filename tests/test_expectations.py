"""Known violations: excused with a reason, strictly, by whom, and until when."""

from datetime import date, datetime

import pytest
import torch
from report_toys import leaky, split

from invariants import (
    Expectation,
    ExpectationError,
    SplitSetting,
    StepSetting,
    Subject,
    UnknownInvariantError,
    Verdict,
    all_but,
    read_expectations,
    verify,
)
from invariants.labels import labels
from reference import SplitRule

ID = "split.conservation"
JUNE = date(2027, 6, 30)


def result(subject, tape, expected, today=None, **options):
    (found,) = verify(subject, tape=tape, only=[ID], expected_violations=expected, today=today, **options).results
    return found


def test_a_violation_is_excused_until_its_last_day_and_no_longer(small_tape):
    expected = [Expectation(ID, "known since v1", owner="kim", expires=JUNE)]
    subject = Subject(name="mine", split=leaky)
    on_the_day = result(subject, small_tape, expected, today=JUNE)
    assert on_the_day.verdict is Verdict.EXPECTED_VIOLATION
    assert on_the_day.worst.reason == "known since v1 (kim, until 2027-06-30)"
    assert on_the_day.worst.expectation == expected[0]
    after = result(subject, small_tape, expected, today=date(2027, 7, 1))
    assert after.verdict is Verdict.VIOLATED
    assert after.worst.reason == "its expectation by kim expired on 2027-06-30: known since v1"
    assert after.worst.measured == on_the_day.worst.measured


def test_an_expectation_without_an_owner_expires_too(small_tape):
    expired = [Expectation(ID, "known", expires=JUNE)]
    found = result(Subject(name="mine", split=leaky), small_tape, expired, today=date(2028, 1, 1))
    assert found.worst.reason == "its expectation expired on 2027-06-30: known"


def test_the_day_is_asked_of_the_clock_where_none_is_given(small_tape):
    subject = Subject(name="mine", split=leaky)
    past, future = ([Expectation(ID, "known", expires=date(year, 1, 1))] for year in (2000, 9999))
    assert result(subject, small_tape, past).verdict is Verdict.VIOLATED
    assert result(subject, small_tape, future).verdict is Verdict.EXPECTED_VIOLATION


@pytest.mark.parametrize("today", [JUNE, date(2027, 7, 1)])
def test_what_held_after_all_is_red_and_does_not_become_green_by_expiring(small_tape, today):
    expected = [Expectation(ID, "known since v1", owner="kim", expires=JUNE)]
    found = result(Subject(name="mine", split=split), small_tape, expected, today=today)
    assert found.verdict is Verdict.UNEXPECTEDLY_HOLDS
    assert found.worst.reason == "expected to be violated (known since v1 (kim, until 2027-06-30)), but: it holds"


def test_an_expectation_for_one_setting_goes_before_one_for_all(small_tape):
    subject = Subject(name="mine", split={SplitSetting(): leaky, SplitSetting(overshoot=1.5): leaky})
    special = Expectation(ID, "special", setting="one_sided, overshoot 1.5")
    general = Expectation(ID, "general")
    for listed in ([special, general], [general, special]):
        found = result(subject, small_tape, listed)
        assert [setting.reason for setting in found.settings] == ["general", "special"]


def reversed_split(g, V):
    removed = 2 * V.T @ (V @ g)
    return g - removed, removed


def test_an_expectation_for_all_is_not_used_up_by_those_for_single_settings(small_tape):
    subject = Subject(name="mine", split={SplitSetting(): leaky, SplitSetting(gate="reverse"): reversed_split})
    found = result(subject, small_tape, {ID: "all of them", f"{ID} @ one_sided": "this one"})
    assert [setting.verdict for setting in found.settings] == [Verdict.EXPECTED_VIOLATION, Verdict.UNEXPECTEDLY_HOLDS]


def test_settings_that_differ_in_a_field_without_a_word_are_told_apart(small_tape):
    subject = Subject(name="mine", split={SplitSetting(): split, SplitSetting(subtracts_stored=True): leaky})
    known = {f"{ID} @ one_sided [subtracts_stored=True]": "known"}
    found = result(subject, small_tape, known)
    assert [s.setting for s in found.settings] == [
        "one_sided [subtracts_stored=False]",
        "one_sided [subtracts_stored=True]",
    ]
    assert [s.verdict for s in found.settings] == [Verdict.HOLDS, Verdict.EXPECTED_VIOLATION]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([SplitSetting(), SplitSetting(gate="reverse")], ["one_sided", "reverse"]),
        (
            [StepSetting(clip_epsilon=0.0), StepSetting(), StepSetting(space="update")],
            [
                "gradient / clip before / its own optimizer [clip_epsilon=0.0]",
                "gradient / clip before / its own optimizer [clip_epsilon=1e-06]",
                "update / clip before / its own optimizer",
            ],
        ),
        (
            [SplitSetting(), SplitSetting(claims=frozenset()), SplitSetting(claims=all_but(ID))],
            ["one_sided [claims=None]", "one_sided [claims=0 ids]", f"one_sided [claims={len(all_but(ID))} ids]"],
        ),
        (
            [SplitSetting(claims=frozenset({ID})), SplitSetting(claims=frozenset({"split.span"}))],
            ["one_sided", "one_sided #2"],
        ),
        (
            [StepSetting(rule=SplitRule(overshoot=1.5)), StepSetting(rule=SplitRule(overshoot=1.5000001))],
            [
                f"gradient / clip before / its own optimizer / one_sided, overshoot 1.5 [rule={rule}]"
                for rule in (SplitRule(overshoot=1.5), SplitRule(overshoot=1.5000001))
            ],
        ),
    ],
)
def test_no_two_settings_have_the_same_label(settings, expected):
    named = labels(settings)
    assert list(named) == settings
    assert list(named.values()) == expected


def test_a_required_check_that_does_not_apply_is_red(small_tape):
    subject = Subject(name="mine", split=split)
    report = verify(subject, tape=small_tape, only=["split"], required=["split.additivity", ID])
    found = {r.invariant.id: r for r in report.results}
    assert not report.ok
    assert found["split.additivity"].verdict is Verdict.VACUOUS
    assert found["split.additivity"].worst.reason == "required, but not applicable: relu is not additive"
    assert found[ID].verdict is Verdict.HOLDS
    assert verify(subject, tape=small_tape, only=[ID, "split.span"], required=[ID]).ok


def test_a_required_check_that_is_not_claimed_is_red(small_tape):
    subject = Subject(name="mine", split=split, claims=all_but(ID))
    found = result(subject, small_tape, None, required=[ID])
    assert found.worst.reason == "required, but not applicable: not claimed; it held"


@pytest.mark.parametrize(
    ("required", "sentence"),
    [
        ("split.typo", "required: no invariant has the id 'split.typo'"),
        ("clip.covers_both", "required: 'clip.covers_both' is not among the invariants that were chosen to run."),
    ],
)
def test_what_cannot_be_required_is_refused(small_tape, required, sentence):
    with pytest.raises(UnknownInvariantError) as caught:
        verify(Subject(name="mine", split=split), tape=small_tape, only=["split"], required=[required])
    assert str(caught.value).startswith(sentence)


WHOLE = """
[[expected]]
id = "split.conservation"
reason = "known since v1"
setting = "one_sided"
owner = "kim"
expires = 2027-06-30

[[expected]]
id = "split.span"
reason = "why not"
"""


def written(folder, text):
    (folder / "known.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "known.toml"


def test_a_file_holds_what_an_expectation_holds(tmp_path):
    assert set(read_expectations(written(tmp_path, WHOLE))) == {
        Expectation(ID, "known since v1", setting="one_sided", owner="kim", expires=JUNE),
        Expectation("split.span", "why not"),
    }


def test_a_file_without_entries_expects_nothing(tmp_path):
    assert read_expectations(written(tmp_path, "# all mended\n")) == ()


ENTRY = '[[expected]]\nid = "split.span"\nreason = "why"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[expected]\n", "{file} is not valid TOML: Expected ']]' at the end of an array declaration (at line 1, "),
        (b"\xff\xfe", "{file} is no text in UTF-8, as TOML must be."),
        ("[[known]]\n", "{file}: 'known' is not known at the top; every entry begins with [[expected]]."),
        (
            '[expected]\nid = "x"\n',
            "{file}: `expected` must be a list of tables; every entry begins with [[expected]].",
        ),
        ("expected = [3]\n", "{file}: `expected` must be a list of tables; every entry begins with [[expected]]."),
        (ENTRY + '[[expected]]\nid = "split.purity"\n', "{file}, entry 2: reason is missing."),
        ('[[expected]]\nreason = "why"\n', "{file}, entry 1: id is missing."),
        (
            ENTRY + "until = 3\n",
            "{file}, entry 1: 'until' is not known; there are id, reason, setting, owner, expires.",
        ),
        (
            '[[expected]]\nid = "split.span"\nreason = " "\n',
            "{file}, entry 1: reason must be a text that says something, not ' '.",
        ),
        ("[[expected]]\nid = 3\nreason = 'why'\n", "{file}, entry 1: id must be a text that says something, not 3."),
        (ENTRY + "owner = true\n", "{file}, entry 1: owner must be a text that says something, not True."),
        (
            ENTRY + 'expires = "2027-06-30"\n',
            "{file}, entry 1: expires must be a date such as 2027-06-30, without quotes and without a time, "
            "not '2027-06-30'.",
        ),
        (ENTRY + "expires = 2027-06-30T12:00:00\n", "{file}, entry 1: expires must be a date such as 2027-06-30, "),
        (ENTRY + "expires = 2027-13-01\n", "{file} is not valid TOML: "),
        (ENTRY + ENTRY, "{file}, entry 2 and {file}, entry 1: 'split.span' is expected twice; leave one of them out."),
        ('[[expected]]\nid = "split"\nreason = "why"\n', "{file}, entry 1: no invariant has the id 'split'; "),
    ],
)
def test_a_file_that_says_nothing_clear_is_refused_in_one_sentence(tmp_path, text, sentence):
    file = written(tmp_path, text)
    with pytest.raises((ExpectationError, UnknownInvariantError)) as caught:
        read_expectations(file)
    said = sentence.format(file=file)
    assert str(caught.value).startswith(said)
    assert str(caught.value) == said or not sentence.endswith(".")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ExpectationError) as caught:
        read_expectations(tmp_path / "absent.toml")
    assert str(caught.value) == f"{tmp_path / 'absent.toml'} can't be read: No such file or directory."
    with pytest.raises(ExpectationError) as caught:
        read_expectations(tmp_path)
    assert str(caught.value) == f"{tmp_path} can't be read: Is a directory."


def test_a_setting_that_the_subject_has_not_is_named_with_its_entry(tmp_path, small_tape):
    file = written(tmp_path, ENTRY + 'setting = "reverse"\n')
    with pytest.raises(UnknownInvariantError) as caught:
        verify(Subject(name="mine", split=split), tape=small_tape, expected_violations=read_expectations(file))
    assert str(caught.value) == (
        f"{file}, entry 1: 'split.span @ reverse' names the setting 'reverse', and subject 'mine' has 'one_sided'."
    )
    with pytest.raises(UnknownInvariantError, match="and subject 'mine' has no adapter"):
        verify(Subject(name="mine", split=split), expected_violations={"adapter.merge @ adapter": "why"})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({ID: ""}, "expected violations: reason must be a text that says something, not ''."),
        ({ID: None}, "expected violations: reason must be a text that says something, not None."),
        ({f"{ID} @ ": "why"}, "expected violations: setting must be a text that says something, not ''."),
        (
            [ID],
            f"expected violations: {ID!r} is no Expectation; pass a mapping from ids to reasons, or Expectations.",
        ),
        (
            [Expectation(ID, "a"), Expectation(ID, "b")],
            f"expected violations: {ID!r} is expected twice; leave one of them out.",
        ),
    ],
)
def test_what_is_no_expectation_is_refused(small_tape, given, sentence):
    with pytest.raises(ExpectationError) as caught:
        verify(Subject(name="mine", split=split), tape=small_tape, expected_violations=given)
    assert str(caught.value) == sentence


def test_a_time_is_no_date():
    with pytest.raises(ExpectationError, match="expires must be a date such as 2027-06-30"):
        Expectation(ID, "why", expires=datetime(2027, 6, 30))


def test_an_error_or_a_vacuous_run_is_not_excused(small_tape):
    idle = Subject(name="idle", split=lambda g, V: (g.clone(), torch.zeros_like(g)))
    raising = Subject(name="raising", split=lambda g, V: 1 / 0)
    assert result(idle, small_tape, {ID: "known"}).verdict is Verdict.VACUOUS
    assert result(raising, small_tape, {ID: "known"}).verdict is Verdict.ERROR
