"""Many harmless programs in one process, each with names of its own and with stand-ins for what has effects.

Every program is checked before the first one runs. A program sees a fresh namespace, a fresh copy of the builtins that
the allow-list names, and a setup that is executed anew for it and that passed the same list. So the only objects that
two programs share are immutable: builtin functions and types. Whatever a stand-in isn't exact for, whatever runs out of
memory or stack, and whatever kills or outlasts the batch is graded again, in a process of its own.

One line of the answer belongs to each program, in order: [frames, exit code or null, printed, marker file or null], or
"alone" if it has to be graded by itself.
"""

import builtins
import gc
import itertools
from collections.abc import Callable
from types import CodeType, SimpleNamespace
from typing import Any

from . import runner
from .allowlist import BUILTINS, ITERTOOLS, NotHarmlessError, harmless
from .runner import Frame

PRINTED = 65536  # characters that a program may print here
_BUILTINS = {name: getattr(builtins, name) for name in BUILTINS if hasattr(builtins, name)}
_BUILTINS["__build_class__"] = builtins.__build_class__
_ITERTOOLS = SimpleNamespace(**{name: getattr(itertools, name) for name in ITERTOOLS if hasattr(itertools, name)})


class AloneError(BaseException):
    """What this program does needs a process of its own."""


class EndedError(SystemExit):
    """What a program meets when it calls a stand-in that would end its process."""


def run(request: dict[str, Any]) -> None:
    """Evaluate a batch and end the process.

    A request holds "programs", each [program, its setup, its calls, mode]; the setup and the calls are indices into
    the lists "setups" and "calls".
    """
    gc.disable()  # a cycle that is collected later would only cost time here
    setups = [_checked(text, "exec") for text in request["setups"]]
    calls = [[_checked(text, "eval") for text in texts] for texts in request["calls"]]
    checked = []
    for program, setup, call, mode in request["programs"]:
        allowed = setups[setup] is not None and None not in calls[call]
        checked.append((_checked(program, "exec") if allowed else None, setups[setup], calls[call], mode))
    for code, before, called, mode in checked:
        line = "alone" if code is None or before is None else _evaluate(code, before, called, mode)
        runner.send([line])
    runner.leave(runner.END)


def _checked(source: str, mode: str) -> CodeType | None:
    try:
        tree = harmless(source.strip() if mode == "eval" else source, mode)
        return compile(tree, "solution.py", mode, dont_inherit=True)  # type: ignore[call-overload, no-any-return]  # mode is one of compile's words
    except (NotHarmlessError, SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _evaluate(code: CodeType, before: CodeType, calls: list[Any], mode: str) -> Any:
    effects = Effects()
    namespace: dict[str, Any] = {"__builtins__": effects.builtins(), "__name__": "solution"}
    frames: list[Frame] = []

    def load() -> None:
        exec(before, namespace)
        exec(code, namespace)

    exit_code = None
    try:
        runner.evaluate(load, namespace, calls, mode, frames.append, _describe)
    except AloneError:
        return "alone"
    except SystemExit as error:
        exit_code = runner.exit_code(error.code)
    return [frames, exit_code, "".join(effects.printed), effects.files]


def _describe(error: BaseException) -> str:
    if isinstance(error, AloneError | MemoryError | RecursionError):
        raise AloneError
    return runner.describe(error)


class Effects:
    """What one program did to the world, had it been let."""

    def __init__(self) -> None:
        self.printed: list[str] = []
        self.files: dict[str, str] = {}
        self._room = PRINTED

    def builtins(self) -> dict[str, Any]:
        """The builtins of one program."""
        stand_ins = {"print": self._print, "open": self._open, "exit": _exit, "quit": _exit, "__import__": _import}
        return {**_BUILTINS, **{name: _function(stand_in) for name, stand_in in stand_ins.items()}}

    def _print(self, *values: Any, **options: Any) -> None:
        if not options.keys() <= {"sep", "end"} or not all(type(option) is str for option in options.values()):
            raise AloneError
        text = options.get("sep", " ").join([str(value) for value in values]) + options.get("end", "\n")
        self._room -= len(text)
        if self._room < 0:
            raise AloneError
        self.printed.append(text)

    def _open(self, name: str, mode: str) -> "TextFile":
        self.files[name] = ""
        return TextFile(self.files, name)


class TextFile:
    """A file that was opened to be written once."""

    def __init__(self, files: dict[str, str], name: str) -> None:
        self._files, self._name = files, name

    def write(self, text: object) -> int:
        """Keep the text."""
        if type(text) is not str:
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if len(text) > PRINTED:
            raise AloneError
        self._files[self._name] = text
        return len(text)


def _function(stand_in: Any) -> Callable[..., Any]:
    """A fresh function, so that no two programs share one."""
    return lambda *values, **options: stand_in(*values, **options)


def _exit(code: object = None) -> None:
    raise EndedError(code)


def _underscore_exit(code: object) -> None:
    if type(code) is not int:
        raise AloneError
    raise EndedError(code)


def _import(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
    if name == "itertools":
        return _ITERTOOLS
    return SimpleNamespace(exit=_exit) if name == "sys" else SimpleNamespace(_exit=_underscore_exit)
