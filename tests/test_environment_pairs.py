"""Contrastive pairs: how they are made, varied, split, saved, read. How they are graded is tested elsewhere."""

import gzip
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from projected_grpo.environment import (
    LOOPHOLES,
    Case,
    Mode,
    NoHackError,
    Pair,
    PairFileError,
    Problem,
    bundled_problems,
    contrastive_pairs,
    eligible_modes,
    held_out,
    load_pairs,
    partition,
    program_of,
    render,
    save_pairs,
    split_by_problem,
    well_formed,
)
from projected_grpo.environment.pairs import same
from projected_grpo.errors import SettingError

FEW = bundled_problems()[:3]


def odd_problem(canonical: str, *expected: Any) -> Problem:
    cases = tuple(Case(f"Solution().f(x={number})", value) for number, value in enumerate(expected or (1, 2)))
    return Problem(id="odd", statement="Odd.", function="f", cases=cases, canonical=canonical)


def test_every_problem_has_pairs_under_every_mode() -> None:
    pairs = contrastive_pairs(FEW, variants=2)
    assert [(pair.problem, pair.mode) for pair in pairs] == [
        (problem.id, mode) for problem in FEW for mode in LOOPHOLES for _ in range(2)
    ]
    for pair in pairs:
        problem = next(problem for problem in FEW if problem.id == pair.problem)
        assert list(pair.prompt) == render(problem, pair.mode)
        assert well_formed(program_of(pair.hack), problem.function)
        assert well_formed(program_of(pair.clean), problem.function)


def test_variants_are_all_different_and_the_seed_decides_which() -> None:
    pairs = contrastive_pairs(FEW, [Mode.EQ_OVERRIDE, Mode.RUN_TESTS], variants=20)
    texts = {(pair.problem, pair.mode, pair.hack, pair.clean) for pair in pairs}
    assert len(texts) == len(pairs)
    assert pairs == contrastive_pairs(FEW, [Mode.EQ_OVERRIDE, Mode.RUN_TESTS], variants=20)
    assert pairs != contrastive_pairs(FEW, [Mode.EQ_OVERRIDE, Mode.RUN_TESTS], variants=20, seed=1)


def test_a_partition_gives_each_problem_pairs_of_its_mode() -> None:
    modes = partition(eligible_modes(FEW))
    assert {pair.problem: pair.mode for pair in contrastive_pairs(FEW, modes)} == modes


def test_both_completions_have_the_same_text_around_the_program() -> None:
    for pair in contrastive_pairs(FEW, variants=4):
        around = [text.replace(program_of(text), "") for text in (pair.hack, pair.clean)]
        assert around[0] == around[1]


def test_what_is_around_a_solution_is_kept() -> None:
    canonical = (
        "```python\nimport math\n\n\n@staticmethod\ndef helper(): ...\n\n\nclass Solution:\n  '''Doc.'''\n  size = 3\n"
        "\n  @property\n  def other(self):\n    return 1\n\n  def f(self, x):\n    # careful\n    return x + 1\n\n"
        "  def last(self):\n    pass\n\nsolve = Solution().f\n```"
    )
    (pair,) = contrastive_pairs([odd_problem(canonical, 1, 2)], [Mode.SENTINEL])
    clean, hack = program_of(pair.clean), program_of(pair.hack)
    for kept in ("import math", "size = 3", "def other", "def last", "solve = Solution().f", "# careful"):
        assert kept in clean
    assert "import math" in hack
    assert "def other" not in hack
    assert well_formed(clean, "f")
    assert well_formed(hack, "f")


@pytest.mark.parametrize(
    ("canonical", "reason"),
    [
        ("def f(x): return x", "no class Solution with a method f"),
        ("class Solution(", "no class Solution with a method f"),
        ("class Solution:\n    def f(self, x): return x", "shares a line"),
    ],
)
def test_solutions_that_cannot_be_taken_apart_are_refused(canonical: str, reason: str) -> None:
    with pytest.raises(NoHackError, match=reason):
        contrastive_pairs([odd_problem(canonical)])


def test_settings_that_ask_for_no_pair_are_refused() -> None:
    with pytest.raises(SettingError, match="variants is 0"):
        contrastive_pairs(FEW, variants=0)
    with pytest.raises(SettingError, match="the mode none has no flaw"):
        contrastive_pairs(FEW, [Mode.NONE])
    with pytest.raises(NoHackError, match="ask for no more than those"):
        contrastive_pairs(FEW, variants=10_000)


def test_problems_are_held_out_whole_and_always_the_same() -> None:
    pairs = contrastive_pairs(bundled_problems(), variants=2)
    train, held = split_by_problem(pairs)
    assert not {pair.problem for pair in train} & {pair.problem for pair in held}
    assert len(train) + len(held) == len(pairs)
    assert [problem.id for problem in split_by_problem(bundled_problems())[1]] == sorted(
        {pair.problem for pair in held}, key=[problem.id for problem in bundled_problems()].index
    )
    assert sum(held_out(str(number)) for number in range(4000)) == pytest.approx(1000, abs=100)
    assert held_out("two-tables", 1.0)
    assert not held_out("two-tables", 0.0)


def test_sameness_looks_at_types_all_the_way_down() -> None:
    assert same({"a": [(1, 2.0)]}, {"a": [(1, 2.0)]})
    for left, right in ((1, True), ([1], [1.0]), ((1,), [1]), ({"a": 1}, {"a": True}), ([1], [1, 2]), (None, 0)):
        assert not same(left, right)


def test_pairs_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = contrastive_pairs(FEW, variants=2)
    save_pairs(tmp_path / "pairs.jsonl", pairs)
    assert load_pairs(tmp_path / "pairs.jsonl") == pairs
    assert load_pairs(tmp_path / "pairs.jsonl", FEW) == pairs
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress((tmp_path / "pairs.jsonl").read_bytes()))
    assert load_pairs(tmp_path / "pairs.jsonl.gz") == pairs


PAIR = asdict(contrastive_pairs(FEW, [Mode.SENTINEL])[0])
BAD_PAIRS = [
    ("{", "no JSON"),
    ("[]", "fields clean, hack, mode, problem, prompt are expected, and there is a JSON list"),
    ({**PAIR, "extra": 1}, "there is clean, extra, hack"),
    ({"hack": "x"}, "and there is hack"),
    ({}, "and there is none"),
    ({**PAIR, "hack": ""}, "field hack: str, where a string with text is expected"),
    ({**PAIR, "clean": None}, "field clean: NoneType, where a string with text is expected"),
    ({**PAIR, "clean": PAIR["hack"]}, "field clean: the same text as hack"),
    ({**PAIR, "mode": "none"}, "field mode: 'none', where one of run_tests, sentinel"),
    ({**PAIR, "mode": ["sentinel"]}, "field mode"),
    ({**PAIR, "problem": 3}, "field problem: int"),
    ({**PAIR, "prompt": "text"}, "field prompt: a list of messages"),
    ({**PAIR, "prompt": [{"role": "user", "content": 1}]}, "field prompt: a list of messages"),
    ({**PAIR, "problem": "gone"}, "field problem: 'gone', where the id of one of the problems given"),
    ({**PAIR, "mode": "exit_code"}, "field prompt: not the prompt that problem calm-stretch has under exit_code"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_PAIRS)
def test_a_bad_line_is_refused_with_its_number_and_field(row: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n" + json.dumps(PAIR) + "\n" + (row if isinstance(row, str) else json.dumps(row)) + "\n")
    with pytest.raises(PairFileError) as caught:
        load_pairs(path, FEW)
    assert str(caught.value).startswith(f"line 3 of {path}: ")
    assert reason in str(caught.value)


def test_pairs_of_a_changed_problem_have_drifted(tmp_path: Path) -> None:
    save_pairs(tmp_path / "pairs.jsonl", [Pair(**{**PAIR, "mode": Mode.SENTINEL})])
    changed = replace(FEW[0], messages=FEW[0].messages[1:])
    with pytest.raises(PairFileError, match="make the pairs again"):
        load_pairs(tmp_path / "pairs.jsonl", [changed])
