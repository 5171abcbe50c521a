"""The formats for programs: JSON follows its schema, JUnit parses, Markdown is a table, and all count alike."""

import copy
import json
import re
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from markdown_it import MarkdownIt
from report_toys import KINDS, ONLY, SUBJECTS, report_of

from invariants import Subject, as_json, as_junit, as_markdown, as_text, verify
from invariants.failure import Command
from invariants.reports import head, schema_text
from regression import pinned

SCHEMA = json.loads(schema_text())
every_kind = pytest.mark.parametrize("kind", KINDS)


def closed(schema):
    """The schema, but with nothing allowed that it does not describe."""
    schema = copy.deepcopy(schema)
    for part in (schema, *schema["$defs"].values(), schema["properties"]["tape"]):
        if "properties" in part:
            part["additionalProperties"] = False
            part["required"] = list(part["properties"])
    return schema


def test_the_schema_is_one_of_draft_2020_12():
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@every_kind
def test_a_json_report_holds_what_the_schema_describes_and_nothing_else(small_tape, kind):
    data = json.loads(json.dumps(as_json(report_of(kind, small_tape)), allow_nan=False))
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    jsonschema.validate(data, closed(SCHEMA), cls=jsonschema.Draft202012Validator, format_checker=checker)


@pytest.mark.parametrize("name", ["report-v1.json", "report-v1-expectations.json"])
def test_what_an_earlier_version_wrote_still_follows_the_schema(name):
    jsonschema.validate(json.loads(pinned(name).read_text()), SCHEMA, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("ok"),
        lambda data: data["results"][0].update(verdict="passed"),
        lambda data: data["results"][0]["settings"].clear(),
        lambda data: data.update(schema_version=2),
        lambda data: data["results"][0].update(margin="0"),
    ],
)
def test_the_schema_refuses_what_is_no_report(small_tape, spoil):
    data = as_json(report_of("green", small_tape))
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA, cls=jsonschema.Draft202012Validator)


@every_kind
def test_what_ran_of_what_heads_every_format(small_tape, kind):
    report = report_of(kind, small_tape)
    counts = head(report)
    assert counts in as_text(report).splitlines()[0]
    assert counts in as_markdown(report).splitlines()[0]
    assert counts in ET.fromstring(as_junit(report)).find("testsuite").get("name")
    data = as_json(report)
    assert counts == f"ran {data['ran']} / applicable {data['applicable']} / total {data['total']}"
    assert list(data).index("ran") < list(data).index("results")


EXPECTED_ELEMENTS = {
    "green": (None, "skipped"), "red": ("failure", "skipped"), "vacuous": ("failure", "skipped"),
    "error": ("error", "skipped"), "expected": ("skipped", "skipped"), "expired": ("failure", "skipped"),
    "unexpected": ("failure", "skipped"), "nonfinite": ("failure", "skipped"), "nothing": ("skipped", "skipped"),
}  # fmt: skip


@every_kind
def test_junit_has_a_test_case_per_invariant_with_its_outcome(small_tape, kind):
    report = report_of(kind, small_tape)
    suite = ET.fromstring(as_junit(report)).find("testsuite")
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert tuple(cases)[:3] == ONLY
    for id, tag in zip(ONLY, EXPECTED_ELEMENTS[kind], strict=False):
        found = [child.tag for child in cases[id] if child.tag != "system-out"]
        assert found == ([] if tag is None else [tag])
        assert cases[id].get("classname") == SUBJECTS[kind].name.replace("\x01", "\\x01") + ".split"
    red = [case for case in cases.values() if case.find("failure") is not None or case.find("error") is not None]
    assert bool(red) == (not report.ok)
    assert [int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")] == [
        len(cases), *(len(suite.findall(f"testcase/{tag}")) for tag in ("failure", "error", "skipped")),
    ]  # fmt: skip


def test_junit_says_what_the_run_stood_on_and_never_how_long_it_took(small_tape):
    document = as_junit(report_of("green", small_tape))
    properties = {p.get("name"): p.get("value") for p in ET.fromstring(document).iter("property")}
    assert (properties["seed"], properties["profile"]) == ("0", "ci")
    assert properties["tape digest"] == small_tape.digest()
    assert {"projected-grpo", "torch", "python"} <= set(properties)
    assert " time" not in document


def test_junit_tells_the_failure_and_why_something_is_skipped(small_tape):
    suite = ET.fromstring(as_junit(report_of("red", small_tape), command=Command(spec="my.module:subject"))).find(
        "testsuite"
    )
    failure = suite.find("testcase/failure")
    assert failure.get("type") == "violated"
    assert failure.get("message").startswith("violated: ")
    assert failure.text.startswith("split.conservation: violated\n  statement     kept + removed = g")
    assert failure.text.endswith("projected-grpo verify my.module:subject --only split.conservation")
    assert suite.find("testcase/skipped").get("message") == "not applicable: relu is not additive"
    known = ET.fromstring(as_junit(report_of("expected", small_tape))).find("testsuite/testcase/skipped")
    assert known.get("message") == "expected violation: known since v1 | long (kim, until 2027-06-30)"


def test_junit_is_xml_whatever_a_subject_says(small_tape):
    document = as_junit(report_of("error", small_tape))
    assert document.isascii()
    message = ET.fromstring(document).find("testsuite/testcase/error").get("message")
    assert r"RuntimeError: a | b\x1b[31m\x00 <c> `d` & \xd800 $e$ at report_toys.py:" in message


def test_a_run_in_which_nothing_applies_fails_in_junit_too(small_tape):
    suite = ET.fromstring(as_junit(report_of("nothing", small_tape))).find("testsuite")
    assert suite.get("failures") == "1"
    assert suite.find("testcase[@name='something applies']/failure").get("message") == (
        "red: nothing was applicable to this subject"
    )


@every_kind
def test_markdown_is_one_table_with_a_row_for_every_invariant(small_tape, kind):
    report = report_of(kind, small_tape)
    text = as_markdown(report)
    assert text.startswith(f"## {'green' if report.ok else 'red'}: ")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows = [i for i, token in enumerate(tokens) if token.type == "tr_open"]
    assert len(rows) == 1 + len(report.results)
    widths = {sum(token.type in ("td_open", "th_open") for token in tokens[i : i + 16]) for i in rows}
    assert len(widths) == 1
    assert [token.content for token in tokens if token.type == "fence"] == [
        f"{story}\n" for story in re.findall(r"^`{3,}text\n(.*?)\n`{3,}$", text, flags=re.S | re.M)
    ]
    assert text.count("<details>") == text.count("</details>") == len([t for t in tokens if t.type == "fence"])


def test_markdown_means_what_a_subject_says_and_not_what_it_looks_like(small_tape):
    text = as_markdown(report_of("error", small_tape))
    assert r"RuntimeError: a \| b\\x1b\[31m\\x00 \<c\> \`d\` \& \\xd800 \$e\$ at report\_toys.py" in text
    heading = as_markdown(report_of("red", small_tape)).splitlines()[0]
    assert heading.startswith(r"## red: red \| \<b\> \& \\x01 (float64), ran ")


def test_a_fence_is_longer_than_what_it_holds(small_tape):
    def raising(g, V):
        raise RuntimeError("````")

    text = as_markdown(verify(Subject(name="mine", split=raising), tape=small_tape, only=["split.span"]))
    assert "\n`````text\nsplit.span: error" in text


@pytest.mark.parametrize("write", [as_text, as_markdown])
def test_an_error_that_every_check_ran_into_is_told_once(small_tape, write):
    text = write(verify(SUBJECTS["error"], tape=small_tape, only=["split"]))
    assert len(re.findall("^  because ", text, flags=re.M)) == 1
    assert len(re.findall("as for split.conservation", text)) == text.count(": error, for the same reason") > 5


@pytest.mark.parametrize("write", [as_text, as_markdown, as_junit])
def test_owner_and_last_day_are_shown_whether_excused_or_expired(small_tape, write):
    for kind, said in (("expected", "(kim, until 2027-06-30)"), ("expired", "by kim expired on 2026-12-31: known")):
        assert said in write(report_of(kind, small_tape))


def test_json_holds_the_expectation_that_was_met_or_missed(small_tape):
    for kind, expires in (("expected", "2027-06-30"), ("expired", "2026-12-31"), ("unexpected", "2027-06-30")):
        settings = as_json(report_of(kind, small_tape))["results"][0]["settings"]
        assert all(s["expectation"]["owner"] == "kim" for s in settings)
        assert all(s["expectation"]["expires"] == expires for s in settings)
    assert as_json(report_of("red", small_tape))["results"][0]["settings"][0]["expectation"] is None


@pytest.mark.parametrize("write", [as_text, as_markdown, as_junit])
def test_a_script_is_named_where_its_violation_is_told(small_tape, write):
    scripts = {"split.conservation": "scripts/split.conservation.py"}
    assert "  script        scripts/split.conservation.py\n" in write(report_of("red", small_tape), scripts=scripts)


@pytest.mark.parametrize("write", [as_text, lambda report: json.dumps(as_json(report), ensure_ascii=False)])
def test_what_a_terminal_would_obey_or_no_encoding_has_is_spelled_out(small_tape, write):
    text = write(report_of("error", small_tape))
    assert text.encode().isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert "x1b[31m" in text
