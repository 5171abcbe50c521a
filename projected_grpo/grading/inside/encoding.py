"""Values as JSON that keeps their exact types, for a reader that trusts nothing of it.

| type                          | is written as               |
|-------------------------------|-----------------------------|
| None, bool, short int, float  | themselves; NaN, Infinity   |
| str                           | itself                      |
| list                          | an array                    |
| tuple, set, frozenset         | {"t": [...]}, {"s": [...]}, {"z": [...]} |
| dict                          | {"d": [[key, value], ...]}  |
| long int                      | {"i": "-0x..."}             |
| bytes                         | {"b": "6869"}               |

A type is exact: True is no int, and an instance of a subclass of int is none of these.
"""

from typing import Any

DEPTH = 64
SIZE = 1 << 20  # about how many characters a value may take
SHORT = 1 << 53


class NotPlainError(Exception):
    """A value is not of the plain types, or it is too deep or too big."""


def encode(value: Any) -> Any:
    """What `json.dumps` takes for a value of plain types."""
    return _encode(value, DEPTH, [SIZE])


def _encode(value: Any, depth: int, room: list[int]) -> Any:
    kind = type(value)
    room[0] -= 1
    if kind is int:
        if -SHORT < value < SHORT:
            return value
        _take(room, value.bit_length() // 4)
        return {"i": hex(value)}
    if value is None or kind is bool or kind is float:
        return value
    if kind is str:
        _take(room, len(value))
        return value
    if depth == 0:
        raise NotPlainError("a value that is nested too deeply to be compared")
    if kind is list:
        _take(room, len(value))
        return [_encode(item, depth - 1, room) for item in value]
    if kind is bytes:
        _take(room, 2 * len(value))
        return {"b": value.hex()}
    if kind is dict:
        _take(room, 2 * len(value))
        return {"d": [[_encode(k, depth - 1, room), _encode(v, depth - 1, room)] for k, v in value.items()]}
    if kind in _TAGS:
        _take(room, len(value))
        return {_TAGS[kind]: [_encode(item, depth - 1, room) for item in value]}
    raise NotPlainError(f"a value of type {type.__getattribute__(kind, '__name__')}, which can't be compared")


_TAGS: dict[type, str] = {tuple: "t", set: "s", frozenset: "z"}


def _take(room: list[int], size: int) -> None:
    room[0] -= size
    if room[0] < 0:
        raise NotPlainError("a value that is too big to be compared")
