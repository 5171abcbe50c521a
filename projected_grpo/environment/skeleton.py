"""Programs taken apart and put together: a class Solution with room above, inside and below.

A hack and its clean twin are one skeleton filled in twice, so that they differ in the hack and in nothing else.
"""

import ast
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from projected_grpo.environment.completion import method, parsed, program_of, solution_class
from projected_grpo.environment.errors import NoHackError
from projected_grpo.environment.problem import Case


@dataclass(frozen=True, slots=True)
class Slots:
    """What is written into a skeleton, each at its own indentation."""

    top: str = ""  # before the class
    head: str = ""  # first members of the class
    first: str = ""  # first lines of the method
    answer: str = ""  # what the method returns instead of a solution: an expression
    tail: str = ""  # last members of the class
    bottom: str = ""  # after the class


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A solution's source by parts, each a tuple of lines."""

    above: tuple[str, ...]  # imports and helpers
    opening: tuple[str, ...]  # "class Solution:"
    before: tuple[str, ...]  # members before the method
    header: tuple[str, ...]  # "    def f(self, x):", with decorators
    body: tuple[str, ...]
    after: tuple[str, ...]  # members after the method
    below: tuple[str, ...]
    member_indent: str
    body_indent: str

    def clean(self, slots: Slots) -> str:
        """The solution, whole, with the slots around it."""
        return self._assemble(slots, self.before, self.body, self.after, self.below)

    def hack(self, slots: Slots) -> str:
        """The same method with an answer instead of its body; the solution's other members are left out."""
        return self._assemble(slots, (), (f"{self.body_indent}return {slots.answer}",), (), ())

    def _assemble(
        self,
        slots: Slots,
        before: Sequence[str],
        body: Sequence[str],
        after: Sequence[str],
        below: Sequence[str],
    ) -> str:
        members = [
            _indented(slots.head, self.member_indent),
            "\n".join(before),
            "\n".join(
                filter(None, ("\n".join(self.header), _indented(slots.first, self.body_indent), "\n".join(body)))
            ),
            "\n".join(after),
            _indented(slots.tail, self.member_indent),
        ]
        solution = "\n".join(self.opening) + "\n" + "\n\n".join(part.strip("\n") for part in members if part.strip())
        parts = ["\n".join(self.above), slots.top, solution, "\n".join(below), slots.bottom]
        return "\n\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def dissect(program: str, function: str) -> Skeleton:
    """Take a solution apart.

    Raises:
        NoHackError: It does not parse, or has no class Solution with that method on lines of its own.
    """
    source = program_of(program)
    tree = parsed(source)
    solution = None if tree is None else solution_class(tree)
    node = None if solution is None else method(solution, function)
    if solution is None or node is None:
        raise NoHackError(f"the canonical solution has no class Solution with a method {function}: write it as one")
    lines = source.splitlines()
    starts = _start(node)
    first_member = min(_start(member) for member in solution.body)
    body = node.body[0].lineno
    if body == node.lineno or node.lineno == solution.lineno:
        raise NoHackError(
            f"the method {function} of the canonical solution shares a line: put its body on lines of its own"
        )
    return Skeleton(
        above=tuple(lines[: _start(solution) - 1]),
        opening=tuple(lines[_start(solution) - 1 : first_member - 1]),
        before=tuple(lines[first_member - 1 : starts - 1]),
        header=tuple(lines[starts - 1 : body - 1]),
        body=tuple(lines[body - 1 : node.end_lineno]),
        after=tuple(lines[node.end_lineno or 0 : solution.end_lineno]),
        below=tuple(lines[solution.end_lineno or 0 :]),
        member_indent=_indent(lines[node.lineno - 1]),
        body_indent=_indent(lines[body - 1]),
    )


def asserts(cases: Sequence[Case], form: str = "assert {call} {equals} {value}") -> str:
    """Checks of cases from inside the class, a line each, in a form that names {call}, {value}, {equals}, {differs}."""
    return "\n".join(
        form.format(
            call=case.call.replace("Solution()", "self", 1),
            value=repr(case.expected),
            equals="is" if _single(case.expected) else "==",
            differs="is not" if _single(case.expected) else "!=",
        )
        for case in cases
    )


def _single(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _start(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _indented(text: str, indent: str) -> str:
    return textwrap.indent(text, indent)
