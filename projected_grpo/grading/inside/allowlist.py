"""Which programs are harmless by their syntax alone, so that many may share one process.

The list allows; whatever it does not name has a process of its own. What is allowed can compute with numbers, strings
and containers, define one plain class, print, write one short text to a file, and exit. It cannot reach an object that
outlives it: there is no import but of stand-ins, no name with an underscore at its front, no builtin that inspects or
evaluates, and no attribute of a builtin type (`gi_frame`, `format`, `mro`, ...) but the few methods in METHODS. It can
still run for ever or fill memory, by recursion or multiplication; the limits of the batch answer that.
"""

import ast
import builtins
import itertools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

SIZE = 2000  # characters
BIGGEST = 1_000_000  # a literal number; powers and shifts are not allowed either
ITERTOOLS = frozenset({"accumulate", "chain", "pairwise", "zip_longest"})
STAND_INS = ("os", "sys")  # of these a program sees one function, which ends it
ONLY_CALLED = ("exit", "print", "quit")  # as values, the stand-ins for them would not look the same
BUILTINS = frozenset({
    "False", "None", "True", "abs", "all", "any", "bool", "dict", "divmod", "enumerate", "filter", "float",
    "int", "len", "list", "map", "max", "min", "object", "range", "reversed", "round", "set", "sorted",
    "str", "sum", "tuple", "zip", "AssertionError", "Exception", "IndexError", "SystemExit", "TypeError", "ValueError",
})  # fmt: skip
# A batch has no other builtin, where a process of its own would have; the stand-ins' names are taken as well.
OTHER_BUILTINS = (
    frozenset(dir(builtins)).union(STAND_INS, ONLY_CALLED, ("copyright", "credits", "help", "license")) - BUILTINS
)
METHODS = frozenset({
    "append", "copy", "count", "extend", "get", "index", "insert", "items", "join", "keys", "lower", "pop", "remove",
    "reverse", "sort", "split", "strip", "upper", "values",
})  # fmt: skip
SPECIAL_METHODS = frozenset({"__init__", "__eq__"})
BASES = frozenset({"int", "list", "object", "str", "tuple"})

_FRAME_TYPES = (
    types.FunctionType, types.MethodType, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType,
    types.CodeType, types.FrameType, types.TracebackType, types.BuiltinFunctionType, types.ModuleType,
    types.GenericAlias, types.SimpleNamespace, types.CellType, type,
)  # fmt: skip
_PLAIN_TYPES = (
    int, float, str, bytes, list, tuple, dict, set, frozenset, range, slice, complex, bytearray, memoryview, property,
    map, filter, zip, enumerate, reversed, BaseException, SystemExit, OSError, UnicodeDecodeError, StopIteration,
    ImportError, SyntaxError, NameError, AttributeError, *(getattr(itertools, name) for name in ITERTOOLS),
)  # fmt: skip
# Attributes that objects have without the program's doing. A program that gives a method such a name is not harmless:
# the name would then be one that it may use anywhere.
BUILTIN_ATTRIBUTES = frozenset(name for kind in (*_FRAME_TYPES, *_PLAIN_TYPES) for name in dir(kind))
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FILE = re.compile(r"[a-z]{1,20}\.txt")

_OPERATORS = (
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.UAdd, ast.USub, ast.Not, ast.And, ast.Or, ast.Eq,
    ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot, ast.In, ast.NotIn, ast.Load, ast.Store,
)  # fmt: skip
_PLAIN_NODES = (
    *_OPERATORS, ast.Module, ast.Expression, ast.Return, ast.Assign, ast.AugAssign, ast.Expr, ast.Pass, ast.Assert,
    ast.If, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set, ast.ListComp, ast.SetComp,
    ast.DictComp, ast.GeneratorExp, ast.Compare, ast.Subscript, ast.Starred, ast.List, ast.Tuple, ast.Slice,
    ast.arguments,
)  # fmt: skip
_PLAIN = frozenset(_PLAIN_NODES)


class NotHarmlessError(Exception):
    """A program has something that the list does not name."""


def harmless(source: str, mode: str = "exec") -> ast.AST:
    """The syntax tree of a source, if all of it is allowed.

    Raises:
        NotHarmlessError: It isn't, or it is too long to be looked at, or no Python.
    """
    if len(source) > SIZE or not source.isascii():
        raise NotHarmlessError("length")
    try:
        tree = compile(source, "solution.py", mode, ast.PyCF_ONLY_AST, dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise NotHarmlessError("syntax") from None
    nodes = list(_nodes(tree))
    own = {node.name for node in nodes if type(node) is ast.FunctionDef}
    stored = (ast.Store, ast.Load) if mode == "eval" else (ast.Store,)  # a call names methods that it doesn't define
    own |= {node.attr for node in nodes if type(node) is ast.Attribute and type(node.ctx) in stored}
    own |= {node.id for node in nodes if type(node) is ast.Name and type(node.ctx) is ast.Store}
    attributes = METHODS | (own - BUILTIN_ATTRIBUTES)
    for node in nodes:
        if type(node) not in _PLAIN:
            _check(node, attributes)
    return tree


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those that a stand-in takes the place of, without recursion."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if type(node) is ast.Call and _stands_in(node.func):
            todo.extend(node.args)
            todo.extend(node.keywords)
            continue
        for field in node._fields:
            value = getattr(node, field, None)
            if type(value) is list:
                todo.extend(item for item in value if isinstance(item, ast.AST))
            elif isinstance(value, ast.AST):
                todo.append(value)


def _stands_in(function: ast.expr) -> bool:
    """Whether this is `print`, `exit`, `os._exit`, `sys.exit`, or the `write` of a text file just opened for it."""
    match function:
        case ast.Name(name):
            return name in ONLY_CALLED
        case ast.Attribute(ast.Name("os"), "_exit") | ast.Attribute(ast.Name("sys"), "exit"):
            return True
        case ast.Attribute(ast.Call(ast.Name("open"), [ast.Constant(str(name)), ast.Constant("w")], []), "write"):
            return _FILE.fullmatch(name) is not None
    return False


def _check(node: ast.AST, attributes: frozenset[str]) -> None:
    check = _CHECKS.get(type(node))
    if check is None or not check(node, attributes):
        raise NotHarmlessError(type(node).__name__)


def _plain_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in OTHER_BUILTINS


def _name(node: ast.Name, attributes: frozenset[str]) -> bool:
    return _plain_name(node.id)


def _constant(node: ast.Constant, attributes: frozenset[str]) -> bool:
    value = node.value
    if type(value) is int:
        return value <= BIGGEST
    if type(value) is str:
        return value.isascii()
    return value is None or type(value) in (bool, float)


def _attribute(node: ast.Attribute, attributes: frozenset[str]) -> bool:
    name, base = node.attr, node.value
    if type(node.ctx) is ast.Store:
        return type(base) is ast.Name and base.id == "self" and _plain_name(name) and name in attributes
    return name in attributes and _plain_name(name)


def _call(node: ast.Call, attributes: frozenset[str]) -> bool:
    return not any(keyword.arg is None for keyword in node.keywords)


def _keyword(node: ast.keyword, attributes: frozenset[str]) -> bool:
    return node.arg is not None and _plain_name(node.arg)


def _function(node: ast.FunctionDef, attributes: frozenset[str]) -> bool:
    own = node.name in attributes and node.name not in METHODS and _plain_name(node.name)
    return not node.decorator_list and (own or node.name in SPECIAL_METHODS)


def _argument(node: ast.arg, attributes: frozenset[str]) -> bool:
    return _plain_name(node.arg)


def _class(node: ast.ClassDef, attributes: frozenset[str]) -> bool:
    plain = all(type(base) is ast.Name and base.id in BASES for base in node.bases)
    return plain and not node.keywords and not node.decorator_list and _plain_name(node.name)


def _comprehension(node: ast.comprehension, attributes: frozenset[str]) -> bool:
    return not node.is_async


def _raise(node: ast.Raise, attributes: frozenset[str]) -> bool:
    return node.cause is None


def _import(node: ast.Import, attributes: frozenset[str]) -> bool:
    return all(alias.name in STAND_INS and alias.asname is None for alias in node.names)


def _import_from(node: ast.ImportFrom, attributes: frozenset[str]) -> bool:
    return node.level == 0 and node.module == "itertools" and all(alias.name in ITERTOOLS for alias in node.names)


def _alias(node: ast.alias, attributes: frozenset[str]) -> bool:
    return node.asname is None


_CHECKS: dict[type, Callable[[Any, frozenset[str]], bool]] = {
    ast.Name: _name,
    ast.Constant: _constant,
    ast.Attribute: _attribute,
    ast.Call: _call,
    ast.keyword: _keyword,
    ast.FunctionDef: _function,
    ast.arg: _argument,
    ast.ClassDef: _class,
    ast.comprehension: _comprehension,
    ast.Raise: _raise,
    ast.Import: _import,
    ast.ImportFrom: _import_from,
    ast.alias: _alias,
}
