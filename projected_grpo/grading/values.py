"""Whether an encoded value is the expected one, types included. Encoded values come from a hostile process.

Values are equal if their types are, exactly, and

- floats differ by at most 1e-9, absolutely or relative to the greater one; NaN equals NaN;
- lists and tuples are of one length and equal item by item;
- sets hold the same members, and dicts the same keys, in any order, with floats equal to the last bit there; a dict's
  values are compared as above.
"""

import json
import math
from typing import Any

from projected_grpo.grading.errors import ExpectedValueError
from projected_grpo.grading.inside.encoding import NotPlainError, encode

TOLERANCE = 1e-9
LONGEST_NUMBER = 25  # characters of an integer that is no {"i": hex}


class ForgedValueError(Exception):
    """What should be an encoded value is none."""


def decode(line: bytes) -> Any:
    """One line of JSON, or ForgedValueError; no number in it takes long to read."""
    try:
        return json.loads(line, parse_int=_short_int)
    except (ValueError, RecursionError):
        raise ForgedValueError from None


def fingerprint(values: list[Any]) -> str:
    """A string that two lists of values share only if they are the same, types included.

    Raises:
        ExpectedValueError: One of them is not of the plain types.
    """
    try:
        return json.dumps([encode(value) for value in values])
    except NotPlainError as error:
        raise ExpectedValueError(f"An expected value is {error}: use plain types.") from None


def matches(expected: Any, encoded: Any) -> bool:
    """Whether a value was encoded that is equal to the expected one.

    Recursion goes as deep as the expected value, whatever was encoded.
    """
    kind = type(expected)
    if kind is float:
        return isinstance(encoded, float) and _close(expected, encoded)
    if expected is None or kind in (bool, str):
        return type(encoded) is kind and bool(encoded == expected)
    if kind is int:
        return bool(_int(encoded) == expected)
    if kind is list:
        return type(encoded) is list and _all_match(expected, encoded)
    if kind is tuple:
        return _all_match(expected, _tagged(encoded, "t"))
    if kind is bytes:
        return bool(_tagged(encoded, "b") == expected.hex())
    if kind in (set, frozenset):
        items = _tagged(encoded, "s" if kind is set else "z")
        return type(items) is list and sorted(map(_exact, items)) == sorted(_exact(encode(item)) for item in expected)
    return kind is dict and _dict_matches(expected, _tagged(encoded, "d"))


def _dict_matches(expected: dict[Any, Any], items: Any) -> bool:
    if type(items) is not list or len(items) != len(expected):
        return False
    if not all(type(item) is list and len(item) == 2 for item in items):
        return False
    values = {_exact(encode(key)): value for key, value in expected.items()}
    found = {_exact(key): value for key, value in items}
    return values.keys() == found.keys() and all(matches(value, found[key]) for key, value in values.items())


def _all_match(expected: Any, items: Any) -> bool:
    return type(items) is list and len(items) == len(expected) and all(map(matches, expected, items))


def _tagged(encoded: Any, tag: str) -> Any:
    """What stands under the tag, if that is all there is."""
    return encoded.get(tag) if type(encoded) is dict and len(encoded) == 1 else None


def _int(encoded: Any) -> int | None:
    if type(encoded) is int:
        return encoded
    text = _tagged(encoded, "i")
    try:
        return int(text, 16) if type(text) is str else None
    except ValueError:
        return None


def _close(expected: float, value: float) -> bool:
    if math.isnan(expected):
        return math.isnan(value)
    return math.isclose(value, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _exact(encoded: Any) -> str:
    """An encoded value as a string, with the members of sets inside it in one order."""
    if type(encoded) is dict and len(encoded) == 1:
        (tag, items), *_ = encoded.items()
        if tag in ("s", "z") and type(items) is list:
            return f"{json.dumps(tag)}{sorted(map(_exact, items))}"
        return f"{json.dumps(tag)}{_exact(items)}"
    if type(encoded) is list:
        return f"[{','.join(map(_exact, encoded))}]"
    return json.dumps(encoded)


def _short_int(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError("a number that no encoder wrote")
    return int(text)
