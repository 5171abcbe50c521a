"""Problems from JSONL: what is read, and what is said of what cannot be."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from projected_grpo.environment import PHRASE, AssertSyntaxError, Case, Mode, ProblemFileError, load_problems, render
from projected_grpo.environment.asserts import cases_of

ROW: dict[str, Any] = {
    "id": 7,
    "prompt": [
        {"role": "system", "content": "Write Python."},
        {"role": "user", "content": f"Add two numbers. It should be a method {PHRASE}."},
    ],
    "gt_answer": ["assert Solution().add(a=1, b=2) == 3", "assert Solution().add(a=-1, b=1) == 0"],
    "func_name": "add",
    "setup_code": "import math",
    "canonical_solution": "```python\nclass Solution:\n    def add(self, a, b):\n        return a + b\n```",
    "difficulty": "easy",
}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_a_row_is_a_problem(tmp_path: Path) -> None:
    (problem,) = load_problems(write(tmp_path / "rows.jsonl", ROW)).problems
    assert (problem.id, problem.function, problem.setup, problem.difficulty) == ("7", "add", "import math", "easy")
    assert problem.cases == (Case("Solution().add(a=1, b=2)", 3), Case("Solution().add(a=-1, b=1)", 0))
    assert problem.canonical == ROW["canonical_solution"]
    assert render(problem, Mode.NONE) == ROW["prompt"]
    assert PHRASE not in json.dumps(render(problem, Mode.SENTINEL))


def test_gzip_marks_blank_lines_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps(ROW) + "\r\n\r\n   \n" + json.dumps({**ROW, "id": "line\u2028end"}, ensure_ascii=False)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert [problem.id for problem in load_problems(path).problems] == ["7", "line\u2028end"]


def test_optional_fields_may_be_null_or_absent_and_unknown_ones_are_counted(tmp_path: Path) -> None:
    first = {**ROW, "setup_code": None, "hint": "x"}
    second = {key: value for key, value in ROW.items() if key not in ("setup_code", "difficulty")} | {"id": "b"}
    loaded = load_problems(write(tmp_path / "rows.jsonl", first, {**second, "hint": 1, "answer": 2}))
    assert [problem.setup for problem in loaded.problems] == ["", ""]
    assert loaded.ignored == {"hint": 2, "answer": 1}


FORMS = [
    ("assert Solution().f(x=1) == -2.5", -2.5),
    ("assert Solution().f([1, 2]) == (1, -1, None)", (1, -1, None)),
    ("assert Solution().f() == {1, 2}", {1, 2}),
    ("assert Solution().f() == set()", set()),
    ("assert Solution().f() == {'a': [True, 'b']}", {"a": [True, "b"]}),
    ("assert Solution().f() is None", None),
    ("assert Solution().f() is True", True),
    ("assert Solution().f() == False", False),
    ("assert Solution().f(x='== 3')", True),
    ("assert not Solution().f(x='é')", False),
    ("assert Solution().f() == 1, 'one is expected'", 1),
    ("  assert (Solution().f(\n    x=1)) == 1  ", 1),
    ("assert sorted(Solution().f()) == [1]", [1]),
    ("assert f(1) == 1", 1),
]


@pytest.mark.parametrize(("text", "expected"), FORMS)
def test_asserts_are_read_with_exact_types(text: str, expected: Any) -> None:
    (case,) = cases_of(text, "f")
    assert case.expected == expected
    assert type(case.expected) is type(expected)
    assert case.call in text


def test_an_entry_may_hold_several_asserts() -> None:
    assert cases_of("assert f(1) == 2\nassert f(2)", "f") == (Case("f(1)", 2), Case("f(2)", True))


UNREADABLE = [
    ("assert Solution().f() ==", "is no Python"),
    ("# nothing", "holds no assert"),
    ("x = 3", "a statement that is no assert"),
    ("assert Solution().f() == 1 == 1", "compares by something else"),
    ("assert Solution().f() != 1", "compares by something else"),
    ("assert Solution().f() is not None", "compares by something else"),
    ("assert abs(Solution().f() - 2.0) < 1e-5", "compares by something else"),
    ("assert Solution().f() == list_node([1])", "has no literal on its right"),
    ("assert Solution().f() == float('inf')", "has no literal on its right"),
    ("assert Solution().f() == b'x'", "a value of another type"),
    ("assert Solution().f() == [1, 2j]", "a value of another type"),
    ("assert 3 == Solution().f()", "has no call on its left"),
    ("assert Solution().g() == 3", "does not call f"),
    ("assert " + "(" * 300 + "f()" + ")" * 300, "is no Python"),
    ("assert f() == " + "-" * 5000 + "1", "is no Python"),
]


@pytest.mark.parametrize(("text", "reason"), UNREADABLE)
def test_other_asserts_are_refused_with_their_text(text: str, reason: str) -> None:
    with pytest.raises(AssertSyntaxError, match=reason) as caught:
        cases_of(text, "f")
    assert " ".join(text.split())[:20] in str(caught.value)
    assert len(str(caught.value)) < 400


def message(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


BAD_ROWS = [
    ("{", "", "no JSON"),
    ("[1]", "", "a JSON list"),
    ("[" * 100_000, "", "no JSON"),
    ({**ROW, "id": None}, "id", "None, where a string or an integer is expected"),
    ({**ROW, "id": True}, "id", "True, where"),
    ({**ROW, "func_name": "Solution().add"}, "func_name", "no name of a method"),
    ({**ROW, "func_name": 3}, "func_name", "int, where a string is expected"),
    ({**ROW, "prompt": "Add."}, "prompt", "no list of messages"),
    ({**ROW, "prompt": [{"role": "user"}]}, "prompt", "message 0 has no string under 'role' and under 'content'"),
    ({**ROW, "prompt": message("Add.")}, "prompt", "holds the phrase 'and should pass all tests' 0 times"),
    ({**ROW, "prompt": message(PHRASE) * 2}, "prompt", "2 times"),
    ({**ROW, "gt_answer": []}, "gt_answer", "no list of assert strings"),
    ({**ROW, "gt_answer": [3]}, "gt_answer", "no list of assert strings"),
    ({**ROW, "gt_answer": ["assert f(1) > 2"]}, "gt_answer", "'assert f(1) > 2' compares"),
    ({**ROW, "canonical_solution": None}, "canonical_solution", "NoneType, where a string is expected"),
    ({key: value for key, value in ROW.items() if key != "gt_answer"}, "gt_answer", "missing"),
    ({**ROW, "id": "good"}, "id", "'good' is already the id of line 1"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "field", "reason"), BAD_ROWS)
def test_a_bad_row_is_refused_with_line_and_field_or_listed(row: Any, field: str, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {**ROW, "id": "good"}, "", row, {**ROW, "id": "last"})
    place = f"line 3 of {path}" + (f", field {field}" if field else "")
    with pytest.raises(ProblemFileError, match=re.escape(place) + ": .*" + re.escape(reason)):
        load_problems(path)
    loaded = load_problems(path, strict=False)
    assert [problem.id for problem in loaded.problems] == ["good", "last"]
    assert [(rejected.line, rejected.field) for rejected in loaded.rejected] == [(3, field)]
    assert reason in loaded.rejected[0].reason


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.jsonl", None, "cannot be read"),
        ("rows.jsonl", b"\xff\xfe{}", "no UTF-8 text"),
        ("rows.jsonl.gz", b"{}", "cannot be read"),
        ("rows.jsonl.gz", gzip.compress(b"{}" * 999, mtime=0)[:-12], "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_either_way(
    name: str, content: bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for strict in (True, False):
        with pytest.raises(ProblemFileError, match=reason):
            load_problems(path, strict=strict)
