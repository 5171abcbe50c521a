"""Contrastive pairs on disk: one JSON object a line, or one list of them, with exactly the fields of `Pair`."""

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, fields
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import Any

from projected_grpo.environment.errors import PairFileError
from projected_grpo.environment.hints import render
from projected_grpo.environment.jsonl import lines_of
from projected_grpo.environment.modes import LOOPHOLES, Mode
from projected_grpo.environment.pairs import Pair
from projected_grpo.environment.problem import Problem
from projected_grpo.whole_files import whole

FIELDS = tuple(field.name for field in fields(Pair))


def save_pairs(path: str | PathLike[str], pairs: Iterable[Pair]) -> None:
    """Write pairs, one a line; an existing file is replaced."""
    lines = (json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    with whole(Path(path)) as partial:
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")


def load_pairs(
    path: str | PathLike[str], problems: Iterable[Problem] | None = None, *, modes: Collection[StrEnum] = LOOPHOLES
) -> list[Pair]:
    """Read pairs.

    Args:
        path: JSONL, or a `.json` file with one list; a name that ends in `.gz` is read through gzip.
        problems: If given, every pair has to belong to one of them and to carry the prompt that it has today.
        modes: Those that a pair may have.

    Raises:
        PairFileError: A line is not what `save_pairs` writes, or its prompt has drifted from its problem's.
    """
    known = None if problems is None else {problem.id: problem for problem in problems}
    pairs = []
    for where, text in _entries(path):
        try:
            pair = _pair(text, modes)
            if known is not None:
                _check_drift(pair, known)
        except PairFileError as error:
            raise PairFileError(f"{where} of {path}: {error}") from None
        pairs.append(pair)
    return pairs


def _entries(path: str | PathLike[str]) -> Iterator[tuple[str, str]]:
    """Place and text of each pair: the lines of JSONL, or the entries of the one list that a .json file holds."""
    lines = lines_of(path, PairFileError)
    if not Path(path).name.removesuffix(".gz").endswith(".json"):
        yield from ((f"line {number}", text) for number, text in lines)
        return
    try:
        entries = json.loads("".join(text for _, text in lines))
    except (ValueError, RecursionError) as cause:
        raise PairFileError(
            f"{path} is no JSON ({cause}): write one list of pairs, or one pair a line of .jsonl"
        ) from None
    if not isinstance(entries, list):
        raise PairFileError(f"{path} holds a JSON {type(entries).__name__}, where a list of pairs is expected")
    yield from ((f"entry {number}", json.dumps(entry)) for number, entry in enumerate(entries, start=1))


def _pair(text: str, modes: Collection[StrEnum]) -> Pair:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise PairFileError(f"no JSON ({cause}): write one object a line") from None
    if not isinstance(row, dict) or row.keys() != set(FIELDS):
        found = ", ".join(sorted(row)) if isinstance(row, dict) else f"a JSON {type(row).__name__}"
        raise PairFileError(f"fields {', '.join(sorted(FIELDS))} are expected, and there is {found or 'none'}")
    for name in ("hack", "clean", "problem"):
        if not isinstance(row[name], str) or not row[name]:
            raise PairFileError(f"field {name}: {type(row[name]).__name__}, where a string with text is expected")
    by_value = {mode.value: mode for mode in modes}
    if row["mode"] not in list(by_value):
        raise PairFileError(f"field mode: {row['mode']!r}, where one of {', '.join(by_value)} is expected")
    if row["hack"] == row["clean"]:
        raise PairFileError("field clean: the same text as hack, where two different completions are expected")
    return Pair(_prompt(row["prompt"]), row["hack"], row["clean"], by_value[row["mode"]], row["problem"])


def _prompt(value: Any) -> tuple[dict[str, str], ...]:
    def is_message(message: Any) -> bool:
        return (
            isinstance(message, dict)
            and message.keys() == {"role", "content"}
            and all(isinstance(text, str) for text in message.values())
        )

    if not isinstance(value, list) or not value or not all(map(is_message, value)):
        raise PairFileError("field prompt: a list of messages with role and content, both strings, is expected")
    return tuple(value)


def _check_drift(pair: Pair, known: dict[str, Problem]) -> None:
    if pair.problem not in known:
        raise PairFileError(f"field problem: {pair.problem!r}, where the id of one of the problems given is expected")
    if list(pair.prompt) != render(known[pair.problem], Mode(pair.mode)):
        raise PairFileError(
            f"field prompt: not the prompt that problem {pair.problem} has under {pair.mode}: make the pairs again"
        )
