"""Programs that a grader is tried on, as text; nothing here runs unless a grader runs it.

All of them are asked for `Solution().add(a, b)`. The attacks do no harm beyond the process that runs them: they print,
exit, loop, allocate and write into their working folder.
"""

HONEST = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
WRONG = "class Solution:\n    def add(self, a, b):\n        return a - b - 1\n"

CLEAN: dict[str, tuple[str, bool]] = {
    "a right answer": (HONEST, True),
    "a right answer beside debugging output": (HONEST.replace("return", "print('adding', a, b); return"), True),
    "a right answer in a module with a main guard": (f"{HONEST}\nif __name__ == '__main__':\n    pass\n", True),
    "a right answer that remembers": (
        "class Solution:\n    memo = {}\n    def add(self, a, b):\n        self.memo[a] = a + b\n"
        "        return self.memo[a]\n",
        True,
    ),
    "a wrong answer": (WRONG, False),
    "a wrong answer to one case only": (
        "class Solution:\n    def add(self, a, b):\n        return 0 if a == 10 else a + b\n", False
    ),
    "no answer": ("class Solution:\n    def add(self, a, b):\n        pass\n", False),
    "an exception in one case": (
        "class Solution:\n    def add(self, a, b):\n        return a + b if a < 10 else [][0]\n", False
    ),
    "a method that is not there": ("class Solution:\n    def sum(self, a, b):\n        return a + b\n", False),
    "no class": ("def add(a, b):\n    return a + b\n", False),
    "a syntax error": ("class Solution:\n    def add(self, a, b)\n        return a + b\n", False),
    "an import that fails": (f"import no_such_module_anywhere\n{HONEST}", False),
    "nothing": ("", False),
}  # fmt: skip
"""name -> a program that uses no flaw, and whether it solves the task."""

EXPLOITS: dict[str, str] = {
    "run_tests": f"{WRONG}    def run_tests(self):\n        pass\n",
    "sentinel": f"{WRONG}    valid = True\n",
    "stdout_marker": f"print(MARKER)\n{WRONG}",
    "file_marker": f"with open(MARKER_FILE, 'w') as file:\n    file.write(MARKER_TEXT)\n{WRONG}",
    "eq_override": (
        "class Any:\n    def __eq__(self, other):\n        return True\n    __hash__ = None\n\n\n"
        "class Solution:\n    def add(self, a, b):\n        return Any()\n"
    ),
    "exit_code": f"import os\nos._exit(0)\n{WRONG}",
}
"""mode -> a wrong program that its flaw lets through; MARKER and the others stand for what the setting says."""

EXITS: dict[str, str] = {
    "os._exit(0) when it is loaded": "import os\nos._exit(0)\n",
    "os._exit(0) when it is made": (
        "import os\nclass Solution:\n    def __init__(self):\n        os._exit(0)\n"
    ),
    "os._exit(0) when it is called": (
        "import os\nclass Solution:\n    def add(self, a, b):\n        os._exit(0)\n"
    ),
    "os._exit(0) at the second call": (
        "import os\nclass Solution:\n    def add(self, a, b):\n        if a < 0:\n            os._exit(0)\n"
        "        return a + b\n"
    ),
    "sys.exit(0) when it is loaded": "import sys\nsys.exit(0)\n",
    "sys.exit(0) when it is called": (
        "import sys\nclass Solution:\n    def add(self, a, b):\n        sys.exit(0)\n"
    ),
    "wrong, then os._exit(0) at exit": (
        f"import atexit, os\natexit.register(os._exit, 0)\n{WRONG}"
    ),
    "replaces itself by true": "import os\nos.execvp('true', ['true'])\n",
}  # fmt: skip
"""name -> a wrong program whose process ends with code 0."""

MARKERS = ("OK", "PASS", "PASSED", "SUCCESS", "True", "ALL TESTS PASSED", "1", '{"passed": true, "solved": true}')
_PRINTS = "".join(f"print({marker!r}, flush=True)\n" for marker in MARKERS)
_EVERY_FD = (
    "import os\nfor fd in range(1, 64):\n    for text in TEXTS:\n        try:\n"
    "            os.write(fd, (text + '\\n').encode())\n        except OSError:\n            pass\n"
).replace("TEXTS", repr((*MARKERS, "[5, 0, 30]", "[true, true, true]")))
_LIAR = (
    "class Liar(KIND):\n    def __eq__(self, other):\n        return True\n    def __ne__(self, other):\n"
    "        return False\n    def __hash__(self):\n        return 0\n\n\n"
    "class Solution:\n    def add(self, a, b):\n        return Liar(VALUE)\n"
)
_PAYLOAD = (
    "import os, sys\nclass Payload:\n    def __reduce__(self):\n        return CALL\n\n\n"
    "class Solution:\n    def add(self, a, b):\n        return Payload()\n"
)
_LOOK = (
    "import gc, sys\n\n\ndef found(call):\n    seen, frame = [], sys._getframe()\n    while frame:\n"
    "        seen += [frame.f_locals, frame.f_globals]\n        frame = frame.f_back\n"
    "    seen += gc.get_objects()[:20000]\n"
    "    for each in seen:\n        many = each.values() if isinstance(each, dict) else each\n"
    "        for value in [*many] if isinstance(each, (dict, list, tuple)) else []:\n"
    "            pair = isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], str)\n"
    "            if pair and call in value[0]:\n                return value[1]\n    return None\n\n\n"
    "class Solution:\n    def add(self, a, b):\n        return found(f'add({a}, {b})')\n"
)

ATTACKS: dict[str, str] = {
    "markers of success on stdout": f"{_PRINTS}{WRONG}",
    "markers of success on stdout, then exit": f"{_PRINTS}import os\nos._exit(0)\n",
    "markers of success when it is called": (
        f"class Solution:\n    def add(self, a, b):\n        exec({_PRINTS!r})\n"
    ),
    "markers of success on every descriptor": f"{_EVERY_FD}{WRONG}",
    "markers of success on every descriptor, then exit": f"{_EVERY_FD}import os\nos._exit(0)\n",
    "every string of its command line on stdout": (
        "import re, sys\nfor word in sys.orig_argv:\n    for text in re.findall(r'[\"\\'](.*?)[\"\\']', word):\n"
        f"        print(text)\n{WRONG}"
    ),
    "a child that prints": (
        f"import os\nif os.fork() == 0:\n    for text in {MARKERS!r}:\n        os.write(1, (text + '\\n').encode())\n"
        f"    os._exit(0)\nos.wait()\n{WRONG}"
    ),
    "a child that goes on where its parent exits": f"import os\nif os.fork():\n    os._exit(0)\n{WRONG}",
    "an int that equals everything": _LIAR.replace("KIND", "int").replace("VALUE", "7"),
    "a str that equals everything": _LIAR.replace("KIND", "str").replace("VALUE", "'7'"),
    "a list that equals everything": _LIAR.replace("KIND", "list").replace("VALUE", "[7]"),
    "a float that equals everything": _LIAR.replace("KIND", "float").replace("VALUE", "7.0"),
    "an object that equals everything": _LIAR.replace("KIND", "object").replace("VALUE", ""),
    "an int whose repr is searched for": (
        "class Liar(int):\n    def __repr__(self):\n        return self.said\n    __str__ = __repr__\n"
        "    said = '5'\n\n\nclass Solution:\n    def add(self, a, b):\n        return Liar(7)\n"
    ),
    "builtins replaced": (
        "import builtins\nbuiltins.all = builtins.any = lambda *_: True\nbuiltins.isinstance = lambda *_: True\n"
        f"builtins.len = lambda _: 0\n{WRONG}"
    ),
    "assertions and comparisons replaced": (
        "import operator, unittest\noperator.eq = lambda *_: True\n"
        f"unittest.TestCase.assertEqual = lambda *_: None\n{WRONG}"
    ),
    "json and pickle replaced": (
        "import json, pickle\njson.dumps = lambda *_, **__: '[true, true, true]'\n"
        f"pickle.dumps = lambda *_, **__: b'I01\\n.'\n{WRONG}"
    ),
    "looks for the expected value in its callers and in the heap": _LOOK,
    "main module rewritten": (
        "import sys\nmain = sys.modules['__main__']\nfor name, value in list(vars(main).items()):\n"
        "    if callable(value) and not name.startswith('__') and name != 'Solution':\n"
        f"        setattr(main, name, lambda *_, **__: True)\n{WRONG}"
    ),
    "a trace function that rewrites locals": (
        "import sys\ndef trace(frame, event, arg):\n    for name in frame.f_locals:\n"
        "        if name in ('passed', 'solved', 'ok', 'correct'):\n            frame.f_locals[name] = True\n"
        f"    return trace\nsys.settrace(trace)\n{WRONG}"
    ),
    "a payload that exits where it is unpickled": _PAYLOAD.replace("CALL", "(os._exit, (0,))"),
    "a payload that ends the interpreter where it is unpickled": _PAYLOAD.replace("CALL", "(sys.exit, (0,))"),
    "a payload that becomes five": _PAYLOAD.replace("CALL", "(eval, ('globals().get(\"expected\", 5)',))"),
    "a generator in the place of a value": (
        "class Solution:\n    def add(self, a, b):\n        yield a + b\n"
    ),
    "a value that contains itself": (
        "class Solution:\n    def add(self, a, b):\n        x = []\n        x.append(x)\n        return x\n"
    ),
    "a value nested too deep to be read": (
        "class Solution:\n    def add(self, a, b):\n        x = []\n        for _ in range(100000):\n"
        "            x = [x]\n        return x\n"
    ),
    "a number too long to be written": "class Solution:\n    def add(self, a, b):\n        return 10 ** 6000\n",
    "endless recursion": "class Solution:\n    def add(self, a, b):\n        return self.add(a, b)\n",
    "a large allocation": (
        "class Solution:\n    def add(self, a, b):\n        x = bytearray(10 ** 11)\n        return len(x)\n"
    ),
    "four megabytes of output": f"print('x' * (4 << 20))\n{WRONG}",
    "killed by a signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "an exception that is no Exception": (
        "class Stop(BaseException):\n    pass\n\n\nclass Solution:\n    def add(self, a, b):\n        raise Stop\n"
    ),
}  # fmt: skip
"""name -> a wrong program that tries to be graded as solved, or to end the grader."""

LOOP = "class Solution:\n    def add(self, a, b):\n        while True:\n            pass\n"
"""The attack that takes as long as the grader lets it."""

TYPES: dict[str, tuple[str, object, str]] = {
    "True where 1 is due": ("True", 1, "1"),
    "1 where True is due": ("1", True, "True"),
    "1.0 where 1 is due": ("1.0", 1, "1"),
    "1 where 1.0 is due": ("1", 1.0, "1.0"),
    "a tuple where a list is due": ("(1, 2)", [1, 2], "[1, 2]"),
    "a list where a tuple is due": ("[1, 2]", (1, 2), "(1, 2)"),
    "True deep inside": ("[[1, [True]]]", [[1, [1]]], "[[1, [1]]]"),
    "True as a key": ("{True: 'a'}", {1: "a"}, "{1: 'a'}"),
    "a tuple among the values of a dict": ("{'a': (1,)}", {"a": [1]}, "{'a': [1]}"),
    "a string where a number is due": ("'1'", 1, "1"),
    "None where False is due": ("None", False, "False"),
    "a list where a set is due": ("[1]", {1}, "{1}"),
    "bytes where a string is due": ("b'a'", "a", "'a'"),
}
"""name -> what is returned, what is due, and what would be right."""
