"""Four implementations written the way researchers write them: the suite tells the right ones from the broken ones.

Only the public API is used. What the broken ones trip is pinned: an accusation more or less is red until understood.
"""

import inspect
from pathlib import Path

import pytest
from strangers import forward_hooks, gradient_surgery, lora_pair, trainer_callback

from invariants import Verdict, verify

STRANGERS = {
    forward_hooks: {
        "clip.covers_both", "clip.common_factor", "optimizer.keeps_sum", "optimizer.empty_module",
        "optimizer.matches_reference", "adapter.ablation_restores",
    },
    lora_pair: {"optimizer.erase_match"},
    gradient_surgery: {
        "split.conservation", "split.null_baseline", "split.matches_reference", "split.purity",
    },
    trainer_callback: {"optimizer.inert_quarantine"},
}  # fmt: skip
ENOUGH = {forward_hooks: 23, lora_pair: 8, gradient_surgery: 12, trainer_callback: 7}  # invariants that must apply
ONLY = {  # making a Trainer takes a quarter of a second, and each run of a check makes one
    trainer_callback: [
        "clip.covers_both", "clip.common_factor", "optimizer.erase_match", "optimizer.inert_quarantine",
        "optimizer.none_ignores_basis", "optimizer.empty_module", "optimizer.matches_reference",
    ],
}  # fmt: skip
each_stranger = pytest.mark.parametrize(
    "stranger",
    [pytest.param(m, marks=pytest.mark.long) if m in ONLY else m for m in STRANGERS],
    ids=lambda module: module.__name__,
)


@each_stranger
def test_the_right_one_is_accused_of_nothing(stranger, small_tape):
    report = verify(stranger.correct(), tape=small_tape, only=ONLY.get(stranger), profile="quick")
    assert report.ok, [(r.invariant.id, r.worst.reason) for r in report.results if not r.verdict.green]
    assert report.applicable >= ENOUGH[stranger]


@each_stranger
def test_the_broken_one_is_caught(stranger, small_tape):
    tripped = STRANGERS[stranger]
    families = sorted({id.partition(".")[0] for id in tripped})
    only = ONLY.get(stranger, families)
    report = verify(stranger.broken(), tape=small_tape, only=only, profile="quick", shrink=False)
    assert {r.invariant.id for r in report.results if r.verdict is Verdict.VIOLATED} == tripped


def test_the_pair_of_lora_claims_less_and_what_it_does_not_claim_is_measured_all_the_same(small_tape):
    report = verify(lora_pair.correct(), tape=small_tape, only=["optimizer.keeps_sum", "optimizer.erase_match"])
    not_claimed, claimed = report.results
    assert not_claimed.worst.reason == "not claimed; it was violated"
    assert claimed.verdict is Verdict.HOLDS


def test_the_readme_shows_one_of_them():
    readme = Path(__file__).parent.parent / "README.md"
    assert inspect.getsource(gradient_surgery.surgery) in readme.read_text()
