"""Tests written as asserts, read as cases: a call, and the value that it must have.

| assert                       | the call must be           |
|------------------------------|----------------------------|
| `assert f(x) == literal`     | the literal, of its type   |
| `assert f(x) is None`        | None; also True and False  |
| `assert f(x)`                | exactly True               |
| `assert not f(x)`            | exactly False              |

`f(x)` is any call with the problem's function in it. A literal is a number (also negative), a string, True, False,
None, and lists, tuples, sets and dicts of them, `set()` too. A message after a comma is not looked at.
"""

import ast
from typing import Any

from projected_grpo.environment.completion import parsed
from projected_grpo.environment.errors import AssertSyntaxError
from projected_grpo.environment.problem import Case

PLAIN = (bool, int, float, str)


def cases_of(text: str, function: str) -> tuple[Case, ...]:
    """The cases that a text of one or more asserts states.

    Raises:
        AssertSyntaxError: It does not parse, or holds something else than asserts of the forms above.
    """
    tree = parsed(text.strip())
    if tree is None:
        raise AssertSyntaxError(f"{_short(text)} is no Python: write `assert Solution().{function}(...) == value`")
    if not tree.body:
        raise AssertSyntaxError(f"{_short(text)} holds no assert: write one, or take the entry out")
    return tuple(_case(node, text.strip(), function) for node in tree.body)


def _case(node: ast.stmt, source: str, function: str) -> Case:
    if not isinstance(node, ast.Assert):
        raise AssertSyntaxError(f"{_short(source)} holds a statement that is no assert: move it to setup_code")
    subject, value = _sides(node.test, source)
    if not isinstance(subject, ast.Call):
        raise AssertSyntaxError(f"{_short(source)} has no call on its left: write the call first, then == value")
    if not any(_names(part) == function for part in ast.walk(subject)):
        raise AssertSyntaxError(f"{_short(source)} does not call {function}: check func_name, or the assert")
    call = ast.get_source_segment(source, subject)
    if call is None:  # pragma: no cover - a node that was parsed from the source has a place in it
        raise AssertSyntaxError(f"{_short(source)} has a call without a place in the text: write it on one line")
    return Case(call=call, expected=value if isinstance(value, bool) else _literal(value, source))


def _sides(test: ast.expr, source: str) -> tuple[ast.expr, ast.expr | bool]:
    """What is tested, and the value it must have: an expression, or the bool that an assert without == means."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return test.operand, False
    if not isinstance(test, ast.Compare):
        return test, True
    if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.Is):
        raise AssertSyntaxError(f"{_short(source)} compares by something else than one == or is: write == value")
    return test.left, test.comparators[0]


def _literal(node: ast.expr, source: str) -> Any:
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise AssertSyntaxError(
            f"{_short(source)} has no literal on its right: write a number, string, list, tuple, set, dict, "
            f"True, False or None"
        ) from None
    if not is_plain(value):
        raise AssertSyntaxError(f"{_short(source)} expects a value of another type than the plain ones: use those")
    return value


def is_plain(value: Any) -> bool:
    """Whether a value is built of None, bool, int, float, str, list, tuple, set and dict alone."""
    if isinstance(value, list | tuple | set):
        return all(is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    return value is None or isinstance(value, PLAIN)


def _names(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 160 else flat[:157] + "...")
