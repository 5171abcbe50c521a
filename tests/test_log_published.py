"""What is published of the declaration: current, valid, and what the writer follows."""

import json

import jsonschema
import pytest

from projected_grpo.logs import METRICS, SCHEMA, LogWriter
from projected_grpo.logs.__main__ import PAGE, SCHEMA_FILE, main
from projected_grpo.logs.metrics import EVENTS, declared
from projected_grpo.logs.published import NAME, json_schema, page

SAMPLES = {"float": 0.5, "int": 3, "str": "text", "bool": True, "object": {"a": 1}}


def test_what_is_published_is_current():
    assert main(["--check"]) == 0


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert f"log-{SCHEMA}.schema.json" == NAME


@pytest.mark.parametrize("event", EVENTS)
def test_lines_follow_the_schema_and_others_do_not(event, tmp_path):
    valid = jsonschema.Draft202012Validator(json_schema()).is_valid
    path = tmp_path / "log.jsonl"
    with LogWriter(path) as log:
        log.write(event, step=0)
        log.write(event, step=1, **{name: SAMPLES[metric.kind] for name, metric in declared(event).items()})
        floats = [name for name, metric in declared(event).items() if metric.kind == "float"]
        log.write(event, step=2, **dict.fromkeys(floats, float("nan")))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [valid(line) for line in lines] == [True] * 3
    name = next(iter(declared(event)))
    wrong = [
        {k: v for k, v in lines[1].items() if k != name}, lines[1] | {"strange": 1}, lines[1] | {"schema": SCHEMA + 1},
        lines[1] | {"event": "stop"}, lines[1] | {"crc32": "1"}, lines[1] | {name: [[]] if "[" not in name else 1} |
        ({} if declared(event)[name].kind != "object" else {name: "text"}),
    ]  # fmt: skip
    assert not any(valid(line) for line in wrong)


def test_the_page_has_every_metric():
    text = page()
    for metric in METRICS:
        assert f"| `{metric.name}` | {metric.kind} | {metric.unit} | {metric.meaning} |" in text
    assert "(../projected_grpo/logs/" + NAME in text


def test_the_command_writes_both_or_says_where_it_can(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("projected_grpo.logs.__main__.SCHEMA_FILE", tmp_path / NAME)
    monkeypatch.setattr("projected_grpo.logs.__main__.PAGE", tmp_path / "docs" / "logs.md")
    with pytest.raises(SystemExit):
        main(["--write"])
    assert "run from a checkout" in capsys.readouterr().err
    (tmp_path / "docs").mkdir()
    assert main(["--check"]) == 1
    assert capsys.readouterr().err.count("is not current") == 2
    assert main(["--write"]) == 0
    assert (tmp_path / NAME).read_text() == SCHEMA_FILE.read_text()
    assert (tmp_path / "docs" / "logs.md").read_text() == PAGE.read_text()
