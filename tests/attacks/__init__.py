"""The attack corpus: programs that try to be graded as right, to reach out, to stay, or to bring the grader down.

The problem can't be solved by thinking: both cases expect a token that was drawn at random. A program that finds the
token, in a file, in memory, or wherever else the caller has it, returns it and is graded as right.

The programs are in the text files beside this one: after a line `=== name: what it tries`, the code. It follows a
prelude that defines `Solution` and `hunt`, unless the line ends with `(bare)`: then it is all there is.
"""

import re
from dataclasses import dataclass
from pathlib import Path

TOKEN_FORM = "token-[0-9a-f]{24}"
# What a program is told of the caller, by these names: more than a submission would know.
PLACES = ("OUTSIDE", "SECRET", "PARENT", "PORT", "UNIX_SOCKET", "ABSTRACT_SOCKET", "PACKAGE")

PRELUDE = f"""
import ctypes, gc, os, re, signal, sys, threading, time
FOUND = []
def hunt(data):
    data = data if isinstance(data, bytes) else repr(data).encode("utf-8", "replace")
    FOUND.extend(match.decode() for match in re.findall(rb"{TOKEN_FORM}", data))
class Solution:
    def f(self):
        return FOUND[0] if FOUND else 0
"""


@dataclass(frozen=True)
class Attack:
    """A hostile program, and what it is after."""

    name: str
    tries: str
    code: str

    def program(self, places: dict[str, str]) -> str:
        """The whole program."""
        text = self.code
        for name in PLACES:
            text = text.replace(name, places[name])
        return text


def _read(path: Path) -> list[Attack]:
    attacks = []
    for part in re.split(r"^=== ", path.read_text(), flags=re.MULTILINE)[1:]:
        head, _, code = part.partition("\n")
        name, _, tries = head.partition(": ")
        bare = tries.endswith(" (bare)")
        attacks.append(Attack(name, tries.removesuffix(" (bare)"), code.rstrip() if bare else PRELUDE + code))
    return attacks


RETURNS = "class Solution:\n    def f(self): return "
ATTACKS: tuple[Attack, ...] = (
    *(attack for path in sorted(Path(__file__).parent.glob("*.txt")) for attack in _read(path)),
    Attack("null_byte", "holds a null byte", RETURNS + "'\0'"),
    Attack("nested_signs", "signs that break parsers", RETURNS + "-" * 50_000 + "1"),
    Attack("nested_brackets", "brackets that break parsers", RETURNS + "(" * 5_000),
)
