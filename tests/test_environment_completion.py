"""From completions to programs, and to whether they have the form; hostile ones included."""

import ast
import runpy
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projected_grpo.environment import completion as module
from projected_grpo.environment import program_of, well_formed

FENCED = [
    ("no fence at all", "no fence at all"),
    ("```python\na = 1\n```", "a = 1"),
    ("First\n```python\na\n```\nbetter:\n```python\nb\n```\nDone.", "b"),
    ("```python\na\n```\nprints\n```\n1\n```", "a"),
    ("```\na\n```", "a"),
    ("```text\nno program\n```", "```text\nno program\n```"),
    ("```py\na\n", "a\n"),
    ("Here it is: ```python\na\n```", "a"),
    ("````python\na = '''\n```\n'''\n````", "a = '''\n```\n'''"),
    ("  ```Python\n  a\n  ```", "  a"),
    ("```python\r\na\r\n```\r\n", "a\r"),
    ("```python", ""),
    ("", ""),
]


@pytest.mark.parametrize(("completion", "program"), FENCED)
def test_the_last_python_block_is_the_program(completion: str, program: str) -> None:
    assert program_of(completion) == program


@given(st.text(alphabet="`python \n(a", max_size=80))
def test_every_text_has_a_program_that_is_part_of_it(completion: str) -> None:
    assert program_of(completion) in completion


FORMED = [
    ("class Solution:\n    def f(self): return 1", True),
    ("class Solution:\n    def g(self): return 1", False),
    ("def f(self): return 1", False),
    ("class Solution:\n    def f(self): return 1\nclass Solution:\n    pass", False),
    ("if True:\n    class Solution:\n        def f(self): return 1", False),
    ("class Solution:\n    def f(self) return 1", False),
    ("class Solution:\n    def f(self): return '\\d'", True),  # a strange escape warns, and parses
    ("", False),
    ("class Solution:\n    def f(self): return 1\0", False),
    ("class Solution:\n    def f(self): return 1\n" + "#" * module.LONGEST_PROGRAM, False),
]


@pytest.mark.parametrize(("program", "formed"), FORMED)
def test_the_form_is_a_class_solution_with_the_method(program: str, formed: bool) -> None:
    assert well_formed(program, "f") is formed


HOSTILE = [
    unit * (module.LONGEST_PROGRAM // len(unit))
    for unit in ("(", "[", "{1:", "-", "~", "not ", "lambda:", "await ", "f'{", "(a:=", "x=", "@a\n", "9", "`", "\\\n")
] + [
    "1" + unit * (module.LONGEST_PROGRAM // len(unit) - 1)
    for unit in ("+1", "**1", "<1", ".a", "()", "[0]", " if 1 else 1", " and 1")
] + ["if 1:\n pass\n" + "elif 1:\n pass\n" * 2200, "".join(" " * deep + "try:\n" for deep in range(99))]  # fmt: skip


def test_no_program_crashes_the_parser() -> None:
    """In a process of its own: what could go wrong is the end of the process, not an exception."""
    code = (
        f"import runpy, sys; formed = runpy.run_path({module.__file__!r})['well_formed']; "
        "print(sum(formed(text, 'f') for text in eval(sys.stdin.read())))"
    )
    ran = subprocess.run([sys.executable, "-c", code], input=repr(HOSTILE), capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout.strip()) == (0, "0"), ran.stderr


@pytest.mark.parametrize("error", [RecursionError, MemoryError, ValueError, SyntaxError])
def test_whatever_the_parser_raises_is_no_form(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str) -> None:
        raise error

    monkeypatch.setattr(ast, "parse", refuse)
    assert not runpy.run_path(module.__file__)["well_formed"]("class Solution: pass", "f")
