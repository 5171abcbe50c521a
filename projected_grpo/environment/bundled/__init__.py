"""The bundled problems: ours, in files by topic, small enough to read and to grade in milliseconds.

A file holds tables `[[problem]]` of TOML with id, difficulty, signature, statement, cases, canonical and alternative.
A case is a line `arguments -> result`, both Python literals; a solution is the body of the method, and what it imports
in its first lines goes to the top of the program.
"""

import ast
import textwrap
import tomllib
from functools import cache
from importlib.resources import files

from projected_grpo.environment.hints import own_messages
from projected_grpo.environment.problem import Case, Problem

TOPICS = ("arrays", "strings", "numbers", "grids", "relations", "plans")


@cache
def bundled_problems() -> tuple[Problem, ...]:
    """All bundled problems, in the order of TOPICS."""
    tables = []
    for topic in TOPICS:
        text = files(__package__).joinpath(f"{topic}.toml").read_text(encoding="utf-8")
        tables += tomllib.loads(text)["problem"]
    return tuple(_problem(table) for table in tables)


def _problem(table: dict[str, str]) -> Problem:
    signature = table["signature"]
    function = signature.partition("(")[0]
    cases = tuple(_case(line, signature) for line in table["cases"].strip().splitlines())
    statement = " ".join(table["statement"].split())
    statement += f"\n\nExample: `{cases[0].call}` is `{cases[0].expected!r}`."
    return Problem(
        id=table["id"],
        statement=statement,
        function=function,
        cases=cases,
        canonical=_program(signature, table["canonical"]),
        difficulty=table["difficulty"],
        messages=own_messages(statement, function, signature),
        alternatives=(_program(signature, table["alternative"]),),
    )


def _case(line: str, signature: str) -> Case:
    arguments, _, result = line.rpartition(" -> ")
    values = ast.literal_eval(f"({arguments},)")
    header = ast.parse(f"def {signature}: ...").body[0]
    assert isinstance(header, ast.FunctionDef)  # a function is what was written
    names = [argument.arg for argument in header.args.args[1:]]
    given = ", ".join(f"{name}={value!r}" for name, value in zip(names, values, strict=True))
    return Case(call=f"Solution().{header.name}({given})", expected=ast.literal_eval(result))


def _program(signature: str, body: str) -> str:
    lines = body.strip().splitlines()
    imported = next(place for place, line in enumerate(lines) if not line.startswith(("import ", "from ")))
    method = f"def {signature}:\n" + textwrap.indent("\n".join(lines[imported:]), "    ")
    above = "".join(line + "\n" for line in lines[:imported]) + ("\n\n" if imported else "")
    return f"{above}class Solution:\n{textwrap.indent(method, '    ')}\n"
