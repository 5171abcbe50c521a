"""Surveys as text, JSON, Markdown and a picture."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import jsonschema
import pytest
import torch
from handmade_optimizers import Averaged, Descent, NeverBuilt, SignWithMomentum, TrustTogether

from invariants.errors import ReportPathError
from invariants.optimizers import PROBES, reports, survey
from invariants.optimizers.against import against_reference
from invariants.optimizers.reports.rows import GROUPS, group_of
from projected_grpo.cli.router import Routed
from regression import pinned


@pytest.fixture(scope="module")
def found():
    return survey(
        [Descent, SignWithMomentum, TrustTogether, Averaged, NeverBuilt],
        router=Routed,
        require=["erase_match@gradient"],
    )


@pytest.fixture(scope="module")
def compared():
    return against_reference()


def test_json_follows_the_published_schema(found, compared):
    data = json.loads(reports.rendered(found, compared, "json"))
    schema = json.loads(reports.schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema)
    assert (data["ran"], data["known"], data["ok"]) == (4, 5, False)
    assert set(data["optimizers"][0]["properties"]) == set(PROBES)
    assert len(data["failures"]) == 2  # one couples, one did not run


def test_json_says_null_where_a_number_is_not_finite(found):
    ill = replace(found.reports[0].spaces["gradient"].figures, deviation=math.inf, drift=math.nan)
    space = replace(found.reports[0].spaces["gradient"], figures=ill)
    report = replace(found.reports[0], spaces={**found.reports[0].spaces, "gradient": space})
    data = json.loads(reports.rendered(replace(found, reports=[report]), [], "json"))
    figures = data["optimizers"][0]["spaces"]["gradient"]["figures"]
    assert (figures["deviation"], figures["drift"]) == (None, None)
    jsonschema.validate(data, json.loads(reports.schema_text()))


def test_every_key_of_version_1_is_still_there_with_its_type(found, compared):
    today = json.loads(reports.rendered(found, compared, "json"))
    then = json.loads(pinned("optimizers-v1.json").read_text())
    assert today["schema_version"] == then["schema_version"] == 1
    assert_holds_all(today, then)


def assert_holds_all(today, then):
    if isinstance(then, dict):
        for key, value in then.items():
            assert key in today, key
            assert_holds_all(today[key], value)
    elif isinstance(then, list) and then and today:
        assert_holds_all(today[0], then[0])
    elif then is not None and today is not None and not isinstance(then, list):
        assert type(today) is type(then) or {type(today), type(then)} <= {int, float}


def test_optimizers_are_grouped_by_what_two_states_keep(found):
    groups = {report.name: group_of(report) for report in found.reports}
    assert groups == {
        "Descent": "linear", "SignWithMomentum": "separable", "TrustTogether": "coupled", "Averaged": "elsewhere",
        "NeverBuilt": "failed",
    }  # fmt: skip
    text = reports.as_text(found)
    assert [title for title in GROUPS.values() if f"{title} (1)" in text] == list(GROUPS.values())
    assert "red: 2 of what was demanded is not there (ran 4 / known 5)" in text


def test_few_are_spelled_out_and_many_are_rows(found):
    spelled_out = reports.as_text(found)
    for word in (*PROBES, "refreshed_displacement", "deviation from vanilla", "decay 0.1", "routed step agrees"):
        assert spelled_out.count(word) >= 1 or word == "decay 0.1", word
    assert "refreshed_displacement" not in reports.as_text(found, details=False)
    narrow = reports.as_text(found, details=False, width=80)
    assert max(map(len, narrow.splitlines())) < 200


def test_markdown_has_the_same_rows(found, compared):
    page = reports.as_markdown(found, compared)
    assert "### Independent states match erase, and lose the sum (1)" in page
    assert "| SignWithMomentum \\(" not in page  # its source is named once, in parentheses that need no escape
    assert "AdamW, maximize" in page
    assert "missing 1 required positional argument" in page


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_map_is_drawn(found, tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    reports.write(found, [], path)
    content = path.read_bytes()
    assert len(content) > 5000
    assert not list(tmp_path.glob("*.partial"))
    if suffix == ".svg":
        for name in ("Averaged", "SignWithMomentum"):  # the other two are where Averaged is
            assert f">{name}<" in content.decode()
        reports.write(found, [], tmp_path / "again.svg")
        assert (tmp_path / "again.svg").read_bytes() == content


def test_a_file_without_a_known_suffix_is_refused(tmp_path):
    with pytest.raises(ReportPathError, match=r"ends in one of \.txt \(text\)"):
        reports.format_of(tmp_path / "survey.xml")
    with pytest.raises(ReportPathError, match="make it first"):
        reports.format_of(tmp_path / "none" / "survey.md")


def test_another_process_writes_the_same_bytes():
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from invariants.optimizers import reports, survey\n"
        "print(reports.rendered(survey([torch.optim.SGD]), [], 'json'), end='')"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there == reports.rendered(survey([torch.optim.SGD]), [], "json")
    assert json.loads(there)["ran"] == 1


def test_what_an_optimizer_says_cannot_break_a_report():
    class Rude(Descent):
        def __init__(self, params):
            raise RuntimeError("\x1b[31m|evil|\n```")

    found = survey([Rude, torch.optim.SGD])
    for format in ("text", "json", "markdown"):
        assert "\x1b" not in reports.rendered(found, [], format)
    assert "\\|evil\\|" in reports.as_markdown(found)
