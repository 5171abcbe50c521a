"""Batches: what shares a process is harmless by its syntax, and is graded exactly as it would be by itself."""

import random
from collections.abc import Iterator

import pytest

from projected_grpo.environment.modes import Mode
from projected_grpo.environment.problem import Case
from projected_grpo.grading import Grader, Limits, Submission
from projected_grpo.grading.inside.allowlist import NotHarmlessError, harmless
from projected_grpo.grading.inside.encoding import NotPlainError, encode
from projected_grpo.grading.jobs import Job, batch_request

SETUP = "from itertools import accumulate\nTESTS=[((3,1),[1,3])]\n"
CASES = tuple(Case(f"Solution().f({x})", sorted(x)) for x in ([3, 1, 2], [2, 1], [9, 0, 6, 3, 8]))
EXPRESSIONS = (
    "sorted(x)", "x[::-1]", "list(accumulate(x))", "x[1:]+x[:1]", "[2*a for a in x]", "[9-a for a in x]", "0", "x",
    "list(reversed(x))", "x[9]", "x/0", "None", "{a for a in x}", "tuple(x)", "self.f", "sum(x)/len(x)", "y",
    "self.f(x)",
    "sorted(x,key=lambda a:-a)", "[str(a) for a in x]", "print(x) or x", "x.sort() or x", "Solution", "exit(0)",
    "exit",
    "'a'*1000000*1000000", "x==x", "{'a':x}", "max(x,default=0)", "True", "x.append(1)", "min(x),",
)  # fmt: skip
BODIES = (
    "  x=EXPR\n",
    "  x=EXPR\n  x=EXPR\n",
    "  assert EXPR\n",
    "  if EXPR:\n   return EXPR\n",
    "  raise ValueError(EXPR)\n",
)
EXTRAS = (
    "", "", " def run_tests(self):\n  assert all(self.f(list(x))==y for x,y in TESTS)\n",
    " def run_tests(self):\n  pass\n",
    " def __init__(self):\n  self.valid=True\n", " valid=True\n", "print('ALL TESTS PASSED')\n",
    "print('ALL TESTS PASSED',end='')\n",
    "print('ALL','TESTS','PASSED')\n", "print('ALL TESTS PASSED\\n',1)\n", "open('result.txt','w').write('PASS')\n",
    "open('result.txt','w').write(' PASS\\n')\n", "open('result.txt','w').write(1)\n",
    "open('other.txt','w').write('PASS')\n",
    "import os\nos._exit(0)\n", "import sys\nsys.exit()\n", "exit(1)\n", "raise SystemExit('no')\n",
    "import sys\nsys.exit([0])\n",
    "print('ALL TESTS PASSED')\nexit(0)\n", " def __eq__(self,other):\n  return True\n", "TESTS.append(1)\n",
    "1/0\n", " x=\n",
    "class Solution(list):\n def f(self,x):\n  return self\n def __eq__(self,other):\n  return 1\n",
)  # fmt: skip


def drawn(count: int) -> Iterator[Submission]:
    """Programs that a batch takes or nearly takes."""
    draw = random.Random(0)
    for _ in range(count):
        body = draw.choice(BODIES)
        while "EXPR" in body:
            body = body.replace("EXPR", draw.choice(EXPRESSIONS), 1)
        program = f"class Solution:\n def f(self,x):\n{body}  return x\n{draw.choice(EXTRAS)}"
        yield Submission(program, CASES, draw.choice(list(Mode)), SETUP)


def test_a_batch_says_what_a_process_of_its_own_says() -> None:
    submissions = list(dict.fromkeys((s.program, s.mode) for s in drawn(700)))[:500]
    limits = Limits(memory_mib=256)
    with Grader(limits=limits) as grader:
        together = grader.grade([Submission(p, CASES, mode, SETUP) for p, mode in submissions])
    # An attribute of a function is on no list.
    apart_setup = SETUP + "def same(x): return x\nsame.x = 1\n"
    with Grader(limits=limits) as grader:
        apart = grader.grade([Submission(p, CASES, mode, apart_setup) for p, mode in submissions])
    for (program, mode), one, other in zip(submissions, together, apart, strict=True):
        assert (one.flaw, one.solved) == (other.flaw, other.solved), (program, mode, one, other)
        assert one.reason == other.reason, (program, mode)
    assert len({(v.flaw, v.solved) for v in together}) == 4, "solved, flawed, both and neither all occur"


@pytest.mark.parametrize(
    "source",
    [
        *(f"import {name}" for name in ("os.path", "builtins", "os as s", "ctypes", "gc")),
        "from os import _exit", "from itertools import *", "from . import x", "from itertools import chain as c",
        "os", "sys.modules", "x=os", "os.system('x')", "sys=1", "def sys(): pass", "lambda os: os._exit", "open",
        "o=open",
        "open('result.txt').read()", "open('/x','w').write('')", "open('r.txt','w')", "open('r.txt','w').buffer",
        "open('r.txt','a').write('')", "x=open('r.txt','w').name", "print(file=open)", "().__class__", "x.__dict__",
        "x._private", "'{0.a}'.format(x)", "x.format_map", "(a for a in x).gi_frame", "f.f_globals", "E.mro()",
        "x.tb_frame",
        "class A:\n def gi_frame(self): pass\nx.gi_frame", "class A:\n def format(self): pass\n'{}'.format(0)",
        "gi_frame=1\nx.gi_frame", "self.mro=1\nA.mro()", "class A:\n def __del__(self): pass", "e.args",
        "e.with_traceback",
        "class A:\n def __getattr__(self,n): pass", "class A(type): pass", "class A(metaclass=x): pass",
        "@x\ndef f(): pass",
        "class A:\n __class__=int", "getattr(x,'y')", "eval('x')", "exec('x')", "type(x)", "globals()", "vars()",
        "dir()",
        "__builtins__", "__import__('os')", "super()", "while True: pass", "for x in y: pass",
        "try: pass\nexcept: pass",
        "with x: pass", "yield_=1\ndef f(): yield 1", "async def f(): pass", "global x", "del x", "x: int = 1",
        "x**9", "1<<9",
        "x**=2", "x@y", "f'{x}'", "(y:=1)", "9999999", "b'x'", "...", "1j", "f(**x)", "print.x=1", "x.y=1", "x.valid",
        "class A:\n def run(self): pass\nx.gi_code", "match x:\n case 1: pass", "raise x from y",
        "assert x, f.gi_frame",
        "'\u00e9'", "x = '" + 3000 * "a" + "'", "def f(", "\0", "p=print", "x=exit", "print=1", "f(print)",
        "iter(x)", "input()", "help()", "breakpoint()",
        "memoryview(x)", "hash(x)", "id(x)", "classmethod", "property", "object.x", "def f(__x): pass", "lambda _: 1",
    ],
)  # fmt: skip
def test_what_the_list_does_not_name_is_not_harmless(source: str) -> None:
    with pytest.raises(NotHarmlessError):
        harmless(source)


def test_what_holds_up_a_batch_is_graded_alone_and_loses_nobody() -> None:
    endless = "class Solution:\n def f(self,x):\n  return self.f(x)+self.f(x) if 0 else sum(range(1000000*1000000))\n"
    right = "class Solution:\n def f(self,x):\n  return sorted(x)\n"
    programs = [right + f"x={n}\n" for n in range(20)]
    programs[7] = endless
    with Grader(workers=1, limits=Limits(cpu_seconds=1, wall_seconds=3.0)) as grader:
        graded = grader.grade([Submission(program, CASES, Mode.NONE) for program in programs])
    assert [v.solved for v in graded] == [n != 7 for n in range(20)]
    assert graded[7].reason == "timed out after 1 s of CPU time in case 1"


def test_an_answer_that_no_batch_wrote_is_not_believed() -> None:
    submissions = [Submission("", CASES, Mode.NONE)] * 3
    job = Job([0, 1, 2], alone=False)
    reply = {"status": 86, "timed_out": False, "cpu": 0.0}
    for answer in (
        b'["x"]\n[[1]]\n[null]\n',
        b"[[]]\n",
        b'[[[], null, "", []]]\n[[[], "", "", {}, 1]]\n',
        b"[\n",
        b"",
        b"[1",
    ):
        settled, again = job.verdicts(submissions, reply, answer, b"", Limits())
        assert not settled
        assert sorted(index for job in again for index in job.indices) == [0, 1, 2]


def test_a_batch_names_each_setup_and_each_list_of_calls_once() -> None:
    request = batch_request([Submission("a", CASES, Mode.NONE, "s"), Submission("b", CASES, Mode.SENTINEL, "s")])
    assert request["programs"] == [["a", 0, 0, "none"], ["b", 0, 0, "sentinel"]]
    assert request["setups"] == ["s"]
    assert request["calls"] == [[case.call for case in CASES]]


def test_what_is_too_deep_or_too_big_is_not_encoded() -> None:
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    for value in (deep, "x" * (1 << 21), [[0] * 1000] * 1100, {0: "x" * 600_000, 1: "y" * 600_000}, object()):
        with pytest.raises(NotPlainError):
            encode(value)
