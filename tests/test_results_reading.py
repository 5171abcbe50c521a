"""Reading logs: all that was ever archived, dirt that real logs carry, and damage, which never becomes a number."""

import json
import re
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results_toys import ARCHIVE, LOGS, V3, jsonl, rows

from projected_grpo.logs import LogWriter
from projected_grpo.results import (
    NoLogsError,
    ResultsError,
    UnknownFormatError,
    UnreadableLogError,
    read_run,
    read_runs,
)
from projected_grpo.results.jsonl import read_jsonl
from projected_grpo.results.tables import results_of
from projected_grpo.results.text import read_text

EXPECTED = json.loads((ARCHIVE / "expected.json").read_text())
TEXT = V3.read_bytes()


def read(data):
    return read_text(V3, data)


def text(*, of=TEXT, **replaced):
    words = of.decode()
    for old, new in replaced.values():
        assert old in words
        words = words.replace(old, new, 1)
    return words.encode()


def changed(old, new):
    return text(it=(old, new))


def line(step):
    """A row of the routing log, as it stands in the file."""
    return re.search(rf"^I +{step} .*$", TEXT.decode(), re.MULTILINE)[0]


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.stem)
def test_an_archived_run_is_read_as_expected(path):
    expected, run = EXPECTED["files"][path.name], read_run(path)
    assert (run.format, run.intervention, run.seed) == (
        f"v{expected['version']}", expected["intervention"], expected["seed"],
    )  # fmt: skip
    assert (run.settings.steps, run.complete, run.problem) == (expected["steps"], expected["complete"], "")
    looks = {row["step"]: row for row in run.evaluations.to_dicts()}
    found = [
        {"step": row["step"], "hack_s": row["hack_student"], "gt_s": row["solve_student"],
         "rew_s": row.get("rew_s_v1"), "hack_abl": looks.get(row["step"], {}).get("hack_deployed"),
         "solve_abl": looks.get(row["step"], {}).get("solve_deployed")}
        for row in run.steps.to_dicts()
    ]  # fmt: skip
    assert found == [pytest.approx(row, abs=1e-9) for row in expected["rows"]]


def test_the_archive_is_tabulated_as_expected():
    made = results_of(read_runs([str(ARCHIVE / "*.log")]))
    for row in made.runs.to_dicts():
        expected = EXPECTED["files"][row["source"].rsplit("/", 1)[-1]]
        for suffix, key in (("", "last5"), ("_deployed", "last5_deployed")):
            found = {name: row[name + suffix] for name in ("hack", "solve")}
            assert found == pytest.approx(expected[key], abs=1e-9)
    paired = {row["source"].rsplit("/", 1)[-1]: row for row in made.paired.to_dicts()}
    assert set(paired) == {row["file"] for row in EXPECTED["paired"]}
    for row in EXPECTED["paired"]:
        keys = [key for key in row if key.startswith("d_") or key == "n_vanilla"]
        assert {key: paired[row["file"]][key] for key in keys} == pytest.approx({k: row[k] for k in keys}, abs=1e-9)
    assert made.unpaired["source"].to_list() == [str(ARCHIVE / "20260531T101500_fast_routing_seed45_v3_11.log")]


def test_one_name_with_two_meanings_is_two_columns():
    v0, v1 = map(read_run, LOGS[:2])
    assert v0.steps["rew_s_v0"][0] == 2.1  # seconds of grading
    assert v1.steps["rew_s_v1"][0] == 0.28  # the student's reward
    assert v1.steps["rew_s_v0"][0] == 1.1
    v2 = read_run(next(ARCHIVE.glob("*_v2_*.log")))
    assert v2.steps["cos_pre"].null_count() == 20  # today's is a share
    assert v2.steps["cos_pre_v2"].null_count() == 0
    assert v2.steps["hack_student_n"].to_list() == [8] * 20


HEADER = next(each for each in TEXT.decode().splitlines() if "ref_eq" in each)
BAR = "\rgen:  50%|█████     | 2/4 [00:01<00:01,  1.20it/s]"
DIRT = {
    "colour": re.sub(rb"(\d/8)", b"\x1b[32m\\1\x1b[0m", TEXT),
    "coloured headers": changed("hack_s?", "\x1b[1;31mhack_s?\x1b[0m"),
    "CRLF": TEXT.replace(b"\n", b"\r\n"),
    "CRLF and colour": TEXT.replace(b"\n", b"\x1b[0m\r\n"),
    "a byte order mark": b"\xef\xbb\xbf" + TEXT,
    "bars on lines of their own": TEXT.replace(b"\nI ", f"{BAR}{BAR}\nI ".encode()),
    "bars before rows": TEXT.replace(b"\nI ", f"\n{BAR}\rI ".encode()),
    "bars before rows, not returned": TEXT.replace(b"\nI ", f"\n{BAR}I ".encode()),
    "bars that are wiped": TEXT.replace(b"\nI ", f"\n{BAR}\r\x1b[K\x1b[AI ".encode()),
    "the header again": changed(line(9), f"{HEADER}\n{line(9)}"),
    "the preset line again": changed(line(9), f"{TEXT.decode().splitlines()[1]}\n{line(9)}"),
    "a warning that speaks of an arm": changed(line(9), f"W arm=vanilla is slow\nW preset=fast arm=vanilla\n{line(9)}"),
    "a message that does": changed(line(9), f"I warning: arm=vanilla intervention=none seed=9\n{line(9)}"),
    "one before everything": b"W arm=projected is the default\nI using arm=projected\n" + TEXT,
    "a sentence that begins with a number": changed(line(9), f"I 9 of 20 are done\n{line(9)}"),
    "a sentence that begins like a header": changed(line(9), f"I step size was halved\n{line(9)}"),
    "an argument line of another arm": changed("--intervention=route", "--arm=vanilla --intervention=none"),
    "blank lines and a stack trace": changed(line(9), f"\n\nTraceback (most recent call last):\n  File 'a'\n{line(9)}"),
    "a last line without newline": TEXT + b"I   step  ref",
}


@pytest.mark.parametrize("data", DIRT.values(), ids=DIRT)
def test_dirt_changes_nothing(data):
    found, clean = read(data), read(TEXT)
    assert (rows(found), found.complete, found.seed) == (rows(clean), True, 44)
    assert found.intervention == "route"


LOST = {
    "a row": (changed(line(9) + "\n", ""), 9),
    "the last row": (changed(line(19) + "\n", ""), 19),
    "a row twice": (changed(line(9), f"{line(9)}\n{line(9)}"), 10),
    "a row out of order": (changed(f"{line(9)}\n{line(10)}", f"{line(10)}\n{line(9)}"), 9),
    "the end of a row": (changed(line(9), line(9)[:60]), 9),
    "one cell": (changed(line(9), line(9).rsplit(None, 1)[0]), 9),
    "a newline": (changed(line(9) + "\n", line(9)), 9),
    "half a fraction": (changed(line(9), line(9).replace("3/8", "3/", 1)), 9),
    "a denominator's digit": (changed(line(9), line(9).replace("3/8", "3/1", 1)), 9),
    "a slash": (changed(line(9), line(9).replace("3/8", "3 8", 1)), 9),
    "a decimal": (changed(line(9), line(9).replace("0.064", "0.06", 1)), 9),
    "a sign": (changed(line(9), line(9).replace("+1.15", "1.15", 1)), 9),
    "the sign of an exponent": (changed(line(9), line(9).replace("e-03", "e103", 1)), 9),
    "an exponent": (changed(line(9), line(9).replace("1.7e-03", "1.7", 1)), 9),
    "a byte that is no text": (text().replace(b"+1.15", b"+1\xff15", 1), 9),
    "rows filled with zeros": (text().replace(line(19).encode(), b"\0" * 90), 19),
    "a row too many": (changed(line(19), f"{line(19)}\n{line(19).replace('19', '20', 1)}"), 20),
    "a restart": (changed(line(9), line(0)), 9),
    "a digit": (changed(line(9), line(9).replace("+1.90", "+1.9").replace("0.064", "064")), 9),
    "a digit before the point": (changed(line(9), line(9).replace("16 ", "6 ", 1)), 9),
    "a digit, for a space": (changed(line(9), line(9).replace("0.64", "0.6 ")).replace(b"0.12 ", b"0.1  "), 9),
    "another rate": (changed("+0.10 ", "+9.10 "), 0),
}


@pytest.mark.parametrize(("data", "kept"), LOST.values(), ids=LOST)
def test_what_is_lost_ends_the_run_there(data, kept):
    found = read(data)
    assert not found.complete
    assert f"{kept} of 20 steps are read" in found.problem
    assert found.steps.to_dicts() == read(TEXT).steps.to_dicts()[:kept]


def test_numbers_too_wide_for_their_column_are_no_damage():
    wide = line(9).replace("  +1.896", "  -123.456"), line(10).replace("  -1.069", "  +98.765")
    found = read(changed(f"{line(9)}\n{line(10)}", "\n".join(wide)))
    assert (found.complete, found.problem) == (True, "")
    assert found.steps["loss"][9:11].to_list() == [-123.456, 98.765]


REFUSED = {
    "other columns": (changed("hack_abl", "hack_off"), UnknownFormatError, "line 4: no known format has the columns"),
    "columns in another order": (changed("gt_s↑    gt_t", "gt_t    gt_s↑"), UnknownFormatError, "line 4: no known"),
    "a column more": (changed("solve_abl", "solve_abl  kl"), UnknownFormatError, "line 4: no known format"),
    "other columns halfway": (changed(line(9), f"{HEADER[:-11]}\n{line(9)}"), UnknownFormatError, "line 14: no known"),
    "no header": (changed(HEADER, ""), UnknownFormatError, "has no header of a table"),
    "no preset line": (changed("I preset=", "I preset "), UnreadableLogError, "has no whole preset line"),
    "an arm of no kind": (changed("arm=routing", "arm=rooting"), UnreadableLogError, "none of vanilla, projected"),
    "arms that contradict": (changed("arm=routing", "arm=vanilla"), UnreadableLogError, "contradict each other"),
    "no arm": (changed("intervention=route arm=routing ", ""), UnreadableLogError, "neither arm= nor intervention="),
    "a byte that is no text": (TEXT.replace(b"Qwen3", b"Qw\xe4n3", 1), UnreadableLogError, "is no name=value"),
    "no seed": (changed("seed=44 steps", "steps"), UnreadableLogError, "it has no seed="),
    "a seed of no kind": (changed("seed=44 steps", "seed=4x steps"), UnreadableLogError, "seed=4x is no number"),
    "two seeds": (changed("seed=44 steps", "seed=44 seed=45 steps"), UnreadableLogError, "'seed=45' is no name=value"),
    "two runs": (TEXT + LOGS[0].read_bytes(), UnreadableLogError, "is the preset line of another run"),
}


@pytest.mark.parametrize(("data", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_known_is_refused(data, error, words):
    with pytest.raises(error, match=re.escape(words)) as caught:
        read(data)
    assert str(V3) in str(caught.value)


def test_a_run_that_was_killed_before_its_table_is_incomplete():
    found = read(TEXT[: TEXT.index(HEADER.encode())])
    assert (found.complete, found.steps.height) == (False, 0)
    assert "0 of" in found.problem


def test_in_v0_and_v1_the_whole_is_the_students_and_the_teachers():
    (path,) = (each for each in LOGS if each.name.endswith("_v0_0.log"))
    data = path.read_bytes()
    row = next(line for line in data.splitlines() if line.startswith(b"I      5"))
    assert b"9/16     1/8     8/8" in row
    found = read_text(path, data.replace(row, row.replace(b" 1/8 ", b" 7/8 ")))
    assert (found.complete, found.steps.height) == (False, 5)
    assert "not hack_s and hack_t together" in found.problem


@settings(max_examples=60)
@given(st.sampled_from(LOGS), st.data())
def test_a_text_log_cut_anywhere_gives_its_beginning_or_an_error(path, data):
    whole = path.read_bytes()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        found = read_text(path, cut)
    except ResultsError:
        return
    clean, (steps, looks) = rows(read_text(path, whole)), rows(found)
    assert steps == clean[0][: len(steps)]
    assert looks == clean[1][: len(looks)]
    assert found.complete == (len(steps) == 20)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return jsonl(tmp_path_factory.mktemp("run") / "log.jsonl", evaluate_every=2)


def prefix_or_error(path, data):
    try:
        found = read_jsonl(path, data)
    except ResultsError:
        return
    clean, (steps, looks) = rows(read_jsonl(path, path.read_bytes())), rows(found)
    assert not found.complete
    assert found.problem
    assert steps == clean[0][: len(steps)]
    # Of fewer evaluations a struct may have fewer modes.
    assert [each["hack_deployed"] for each in looks] == [each["hack_deployed"] for each in clean[1][: len(looks)]]


@settings(max_examples=80)
@given(st.data())
def test_jsonl_cut_anywhere_gives_its_beginning_or_an_error(log, data):
    whole = log.read_bytes()
    prefix_or_error(log, whole[: data.draw(st.integers(0, len(whole) - 1))])


@settings(max_examples=120)
@given(st.data())
def test_jsonl_with_any_byte_changed_gives_its_beginning_or_an_error(log, data):
    whole = bytearray(log.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[at]))
    prefix_or_error(log, bytes(whole))


def test_jsonl_that_lost_or_doubled_any_line_gives_its_beginning_or_an_error(log):
    lines = log.read_bytes().splitlines(keepends=True)
    for at in range(len(lines)):
        prefix_or_error(log, b"".join(lines[:at] + lines[at + 1 :]))
        prefix_or_error(log, b"".join(lines[: at + 1] + lines[at:]))


def test_jsonl_is_read_as_it_was_written(log):
    run = read_run(log.parent)
    assert (run.format, run.intervention, run.space, run.seed, run.complete) == ("jsonl-2", "route", "update", 0, True)
    assert run.steps["loss"].to_list() == [0.1 * step for step in range(1, 7)]
    assert run.evaluations["step"].to_list() == [2, 4, 6]
    assert run.evaluations["hack_by_mode_deployed"][0] == {"run_tests": 0.125, "sentinel": 0.0}
    assert read_jsonl(log, log.read_bytes().replace(b"\n", b"\r\n")).steps.equals(run.steps)


def test_numbers_that_are_not_finite_come_back(tmp_path):
    path = jsonl(tmp_path / "log.jsonl", hack=lambda step: float("inf") if step == 3 else 0.5)
    assert read_run(path).steps["hack_student"].to_list() == [0.5, 0.5, float("inf"), 0.5, 0.5, 0.5]


def test_a_run_without_its_end_is_incomplete(tmp_path):
    run = read_run(jsonl(tmp_path / "log.jsonl", ends=False))
    assert (run.complete, run.problem) == (False, "6 of 6 steps are read, and the end of the run is missing")


def test_another_schema_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("projected_grpo.logs.lines.SCHEMA", 77)
    with LogWriter(tmp_path / "log.jsonl") as log:
        log.write("run", step=0, arm="none")
    with pytest.raises(UnknownFormatError, match="line 1 has schema 77, and this version reads schema 1 and 2"):
        read_run(tmp_path)


def test_paths_are_files_folders_and_patterns_each_once(tmp_path):
    shutil.copy(V3, tmp_path / "renamed_vanilla_seed9_v0.log")
    jsonl(tmp_path / "runs" / "a" / "log.jsonl")
    found = read_runs([tmp_path, str(tmp_path / "*.log"), tmp_path / "runs" / "a"])
    assert [(run.format, run.seed) for run in found] == [("v3", 44), ("jsonl-2", 0)]
    for nothing in (tmp_path / "none", str(tmp_path / "*.txt")):
        with pytest.raises(NoLogsError, match="There is no log at"):
            read_runs([nothing])
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoLogsError, match="is below"):
        read_runs([tmp_path / "empty"])
    (tmp_path / "nothing.log").touch()
    with pytest.raises(UnreadableLogError, match="is empty"):
        read_run(tmp_path / "nothing.log")
