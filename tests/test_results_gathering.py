"""What paths stand for, and files that no run is read from: each is named, and none refuses the rest."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from results_toys import V3, jsonl

from projected_grpo.cli.plot import plot
from projected_grpo.cli.results import results
from projected_grpo.environment import Mode
from projected_grpo.errors import UsageError
from projected_grpo.logs import SCHEMA
from projected_grpo.results import NoLogsError, UnreadableLogError, read_run, read_runs
from projected_grpo.results.plots import clip_thresholds
from projected_grpo.results.reading import gather
from projected_grpo.training import pool


def of(gathered, folder):
    """Sources of the runs, and what each other file is, below a folder."""
    names = [str(run.source.relative_to(folder)) for run in gathered.runs]
    return names, {str(each.source.relative_to(folder)): each.kind for each in gathered.left_out}


@pytest.fixture
def runs(tmp_path):
    jsonl(tmp_path / "a" / "log.jsonl", arm="none")
    jsonl(tmp_path / "b" / "log.jsonl")
    return tmp_path


def test_a_copy_counts_once_and_is_named(runs, capsys):
    shutil.copytree(runs / "a", runs / "z")
    (runs / "packed.jsonl.gz").write_bytes(gzip.compress((runs / "b" / "log.jsonl").read_bytes()))
    found = gather([runs])
    assert of(found, runs) == (["a/log.jsonl", "b/log.jsonl"], {"z/log.jsonl": "copy", "packed.jsonl.gz": "copy"})
    assert len(read_runs([runs])) == 2
    assert results((str(runs),), format_="json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["n_vanilla"] for row in shown["paired"]] == [1]
    assert {row["source"]: row["reason"] for row in shown["unread"]}[str(runs / "z" / "log.jsonl")] == (
        f"it holds the same bytes as {runs / 'a' / 'log.jsonl'}, and a run counts once"
    )
    for format_ in ("terminal", "markdown", "csv"):
        assert results((str(runs),), format_=format_) == 0
        assert "copy" in capsys.readouterr().out
    assert plot((runs,), out=(runs / "p.json",)) == 0
    assert f"{runs / 'z' / 'log.jsonl'} is left out: it holds the same bytes" in capsys.readouterr().err


def test_links_are_followed_and_never_in_a_circle(runs, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    jsonl(elsewhere / "log.jsonl", seed=5)
    (runs / "link").symlink_to(elsewhere, target_is_directory=True)
    (runs / "a" / "up").symlink_to(runs, target_is_directory=True)
    (elsewhere / "back").symlink_to(runs, target_is_directory=True)
    (runs / "again.jsonl").symlink_to(elsewhere / "log.jsonl")
    (runs / "gone.log").symlink_to(runs / "nowhere")
    (runs / "itself.log").symlink_to(runs / "itself.log")
    names, others = of(gather([runs, elsewhere]), runs)
    assert names == ["a/log.jsonl", "again.jsonl", "b/log.jsonl"]
    assert others == {"gone.log": "unreadable", "itself.log": "unreadable"}


def test_logs_of_any_case_gzipped_or_not_are_read(tmp_path):
    for at, name in enumerate(("run.jsonl", "RUN.JSONL", "log.jsonl.gz", "x.Jsonl.GZ")):
        path = jsonl(tmp_path / str(at) / "log.jsonl", seed=at)
        content = path.read_bytes()
        path.unlink()
        (tmp_path / str(at) / name).write_bytes(gzip.compress(content) if name.lower().endswith("gz") else content)
    shutil.copy(V3, tmp_path / "OLD.LOG")
    (tmp_path / "old.log.gz").write_bytes(gzip.compress(V3.read_bytes() + b"I the end\n"))
    found = gather([tmp_path])
    assert sorted((run.seed, run.format) for run in found.runs) == [
        *((at, f"jsonl-{SCHEMA}") for at in range(4)), (44, "v3"), (44, "v3"),
    ]  # fmt: skip
    assert found.left_out == []


def test_the_clip_threshold_of_a_gzipped_log_is_found(tmp_path):
    path = jsonl(tmp_path / "log.jsonl", max_norm=2.5)
    packed = tmp_path / "log.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert clip_thresholds([read_run(packed)]) == {packed: 2.5}


def test_what_is_called_nearly_like_a_log_is_named_and_not_read(runs, capsys):
    for name in ("log.jsonl.1", "old.log~", "log.jsonl.bak"):
        shutil.copy(runs / "a" / "log.jsonl", runs / "b" / name)
    (runs / "b" / "catalog").touch()
    (runs / "b" / "logic.py").touch()
    assert of(gather([runs]), runs)[1] == dict.fromkeys(("b/log.jsonl.1", "b/log.jsonl.bak", "b/old.log~"), "no log")
    assert len(read_runs([runs / "b" / "log.jsonl.1"])) == 1, "by its own name it is read"
    assert results((str(runs),)) == 0
    assert "its name is nearly that of a log" in " ".join(capsys.readouterr().out.split())


def test_pools_and_other_json_lines_are_no_logs_and_no_errors(runs, capsys):
    rollout = pool.Rollout("k", Mode.NONE, (1,), (7, 2), 'says , "crc32": "', passed=True, solved=True)
    pool.write(runs / "a" / "pool.jsonl.gz", [rollout])
    (runs / "a" / "pairs.jsonl").write_text('{"prompt": 1}\n')
    (runs / "a" / "config.json").write_text("{}")
    expected = {"a/pool.jsonl.gz": "no log", "a/pairs.jsonl": "no log"}
    assert of(gather([runs]), runs)[1] == expected
    assert of(gather([str(runs / "*" / "*")]), runs)[1] == expected | {"a/config.json": "no log"}
    assert results((str(runs),), format_="json") == 0
    assert {row["kind"] for row in json.loads(capsys.readouterr().out)["unread"]} == {"no log"}
    with pytest.raises(UnreadableLogError):
        read_run(runs / "a" / "pairs.jsonl")
    (runs / "only").mkdir()
    shutil.copy(runs / "a" / "pairs.jsonl", runs / "only")
    with pytest.raises(NoLogsError, match="None of 1 files that look like logs is the log of a run"):
        gather([runs / "only"])


DAMAGED = {
    "log.jsonl": b"{}\n", "empty.log": b"", "other.log": b"a log of something else\n",
    "cut.jsonl.gz": gzip.compress(b"x" * 999, mtime=0)[:-9], "no.log.gz": b"\x1f\x8b" + b"no gzip",
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_one_unreadable_file_does_not_refuse_the_others(runs, name, capsys):
    bad = runs / "c" / name
    bad.parent.mkdir()
    bad.write_bytes(DAMAGED[name])
    for given in (str(runs), str(runs / "*" / "*")):
        assert results((given,), format_="json") == 1
        out, err = capsys.readouterr()
        [row] = json.loads(out)["unread"]
        assert (row["source"], row["kind"]) == (str(bad), "unreadable")
        assert err == f"projected-grpo: {bad} is left out: {row['reason']}\n"
        assert len(row["reason"]) < 160
        assert len(json.loads(out)["paired"]) == 1
    assert plot((runs,), out=(runs / "p.json",)) == 1
    assert str(bad) in capsys.readouterr().err
    with pytest.raises((ValueError, OSError)):
        read_runs([runs])
    with pytest.raises((ValueError, OSError)):
        read_run(bad)


def test_a_file_named_itself_that_cannot_be_read_is_exit_code_2(runs, capsys):
    bad = runs / "bad.log"
    bad.write_text("nothing\n")
    assert results((str(runs / "a"), str(bad)), format_="json") == 2
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 1
    assert results((str(runs), str(bad)), format_="csv") == 2, "however else it was found"
    assert plot((runs / "a", bad), out=(runs / "p.json",)) == 2


def test_where_nothing_can_be_read_the_reason_is_the_error(tmp_path):
    (tmp_path / "a.log").touch()
    with pytest.raises(UnreadableLogError, match=r"a\.log is empty"):
        gather([tmp_path])
    (tmp_path / "b.log").touch()
    with pytest.raises(NoLogsError, match=r"None of 2 logs can be read, of which the first is .*a\.log: it is empty"):
        gather([tmp_path])


def test_what_may_not_be_read_is_named(runs, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    content = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: denied(path) if path.name == "b" else content(path))
    [left] = gather([runs]).left_out
    assert (left.source, left.reason) == (runs / "b", "the folder cannot be listed (Permission denied)")
    with pytest.raises(PermissionError):
        read_runs([runs])


@pytest.mark.parametrize("name", ["runs[1]", "runs[ab]", "a*b", "what?", "[", "a]b["])
def test_brackets_in_the_name_of_what_is_there_are_no_pattern(tmp_path, name):
    jsonl(tmp_path / name / "a" / "log.jsonl")
    jsonl(tmp_path / "runs1" / "a" / "log.jsonl", seed=1)
    for given in (tmp_path / name, f"{tmp_path / name}/*/log.jsonl", f"{tmp_path / name}/**/*.jsonl"):
        [run] = read_runs([given])
        assert run.source == tmp_path / name / "a" / "log.jsonl"
    assert [run.seed for run in read_runs([f"{tmp_path}/runs[1-9]/*/log.jsonl"])] == [1]


def test_a_pattern_in_the_working_folder_is_one(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert [str(run.source) for run in read_runs(["*/log.jsonl"])] == ["a/log.jsonl", "b/log.jsonl"]
    assert [str(run.source) for run in read_runs(["**"])] == ["a/log.jsonl", "b/log.jsonl"]


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_read(runs):
    for bad, said in ((runs / "none" / "r.md", "there is no directory"), (runs / "r.csv", "it is a directory")):
        (runs / "r.csv").mkdir(exist_ok=True)
        with pytest.raises(UsageError, match=said):
            results((str(runs),), report=(bad,))
