"""Append-only, held against every released version; and the logs of releases, read as they were written."""

import json
from dataclasses import replace

import pytest

from projected_grpo.logs import METRICS, SCHEMA, read
from regression import releases
from regression.__main__ import freeze_log, main
from regression.append_only import Declaration, declaration, freeze, problems, released

NOW = declaration()
AT = {(metric.event, metric.name): at for at, metric in enumerate(METRICS)}


def changed(event, name, /, **changes):
    """Today's declaration with one metric declared otherwise."""
    at = AT[event, name]
    return declaration([*METRICS[:at], replace(METRICS[at], **changes), *METRICS[at + 1 :]])


def inserted(event, name, /, **new):
    """With a metric in front of another."""
    at = AT[event, name]
    return declaration([*METRICS[:at], replace(METRICS[at], **new), *METRICS[at:]])


def test_nothing_that_was_released_was_moved_removed_or_redefined():
    assert problems(NOW, released()) == []
    assert released()[-1].version == SCHEMA


def test_a_metric_may_be_appended_in_a_newer_version():
    newer = declaration([*METRICS, replace(METRICS[AT["step", "loss"]], name="entropy", since=SCHEMA + 1)], SCHEMA + 1)
    assert problems(newer, released()) == []
    assert problems(replace(newer, version=SCHEMA), [*released(), newer]) == []


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (changed("step", "loss", unit="bits"), "step.loss: unit was redefined, from 'nats' in version 1 to 'bits'"),
        (changed("step", "loss", meaning="the loss"), "step.loss: meaning was redefined"),
        (changed("step", "fired", kind="float"), "step.fired: kind was redefined"),
        (changed("step", "quarantine_norm", arms=("erase", "route")), "step.quarantine_norm: arms was redefined"),
        (changed("step", "hack_student", of="completions"), "step.hack_student: of was redefined"),
        (changed("step", "loss", name="nll"), "step.loss was removed, and version 1 has it"),
        (changed("step", "loss", name="nll"), "step: nll stands in column 0, where version 1 has loss"),
        (inserted("step", "reward", name="rew_t", since=2), "step: rew_t stands in column 1, where"),
        (declaration(METRICS[:-1]), "checkpoint: nothing stands in column 1, where version 1 has seconds"),
        (declaration([*METRICS, replace(METRICS[-1], name="bytes")]), "checkpoint.bytes is new, and says that"),
        (replace(NOW, stream=NOW.stream[1:]), "the stream: reward reward stands in column 0"),
        (replace(NOW, stream=(("loss", "kl"), *NOW.stream[1:])), "the stream: loss kl stands in column 0"),
    ],
)  # fmt: skip
def test_any_other_change_is_told(now, said):
    assert any(problem.startswith(said) for problem in problems(now, released()))


def test_a_name_that_is_gone_is_not_used_again():
    empty = Declaration(2, {}, ())
    told = problems(replace(NOW, version=3), [NOW, empty])
    assert "step.loss is used again, and was gone since an earlier version" in told


def test_a_version_is_frozen_once(tmp_path, capsys):
    path = freeze(NOW, tmp_path)
    plain = json.loads(path.read_text())
    assert [metric["order"] for metric in plain["events"]["warning"]] == [0]
    assert set(plain["events"]["step"][0]) == {
        "order", "name", "kind", "unit", "meaning", "arms", "since", "of",
    }  # fmt: skip
    with pytest.raises(FileExistsError):
        freeze(NOW, tmp_path)
    with pytest.raises(SystemExit):
        main(["--freeze"])
    assert f"v{SCHEMA}.json" in capsys.readouterr().err


@pytest.mark.parametrize("version", releases.versions())
def test_a_released_log_is_read_to_what_it_was_written_from(version):
    found = [{"event": e.event, "step": e.step, "values": e.values} for e in read(releases.log(version))]
    assert found == releases.expected(version)["lines"]
    assert {entry["event"] for entry in found} >= {"run", "step", "evaluation", "refresh", "checkpoint", "final"}


def test_every_released_version_has_a_log():
    assert releases.versions() == [f"v{version.version}" for version in released()]


def test_a_frozen_log_is_never_written_again(tmp_path, monkeypatch):
    with pytest.raises(FileExistsError):
        freeze_log(releases.log("v1").parent, "v1")
    freeze_log(releases.log("v1").parent, "v7", tmp_path)
    monkeypatch.setattr(releases, "RELEASES", tmp_path)
    assert releases.versions() == ["v7"]
    assert releases.log("v7").read_bytes()
    (tmp_path / "v7" / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match="never written again"):
        releases.log("v7")
    with pytest.raises(ValueError, match="no finished run"):
        freeze_log(tmp_path / "v7", "v8", tmp_path)
