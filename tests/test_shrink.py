"""Counterexamples are small, the same every time, and of the violations that are red alone."""

from dataclasses import replace

import pytest
import torch

from invariants import SplitSetting, Subject, all_but, all_invariants, runner, verify
from invariants.cases import SplitCase
from invariants.museum import FAULTS
from invariants.shrink import EVALUATIONS, complexity
from invariants.verdict import Verdict

BY_NAME = {fault.name: fault for fault in FAULTS}

# fault -> at most: coordinates of a module, rows, steps, modules; and the largest number in the gradients.
MINIMAL = {
    "removed reads the gradient that kept has changed in place": (1, 1, 1, 1, 1.0),
    "kept is written into the gradient's buffer": (1, 1, 1, 1, 1.0),
    "overshoot for kept and not for removed": (1, 1, 1, 1, 1.0),
    "an axis is in the basis twice": (1, 1, 1, 1, 1.0),
    "basis stored in bfloat16": (2, 1, 1, 1, 1.0),
    "coefficients of a shard are not reduced": (2, 1, 1, 1, 1.0),
    "sign of V flipped": (1, 1, 1, 1, 1.0),
    "expanded with the basis of a step ago": (2, 1, 1, 1, 1.0),
    "empty basis padded with a unit row": (1, 0, 1, 1, 1.0),
    "overshoot 1 is forced": (1, 1, 1, 1, 1.0),
    "clip covers the deployed set only": (1, 1, 1, 1, 1.0),
    "erase is clipped by a norm without the removed part": (2, 1, 1, 1, 1.0),
    "clip per module": (2, 1, 2, 2, 10.0),
    "an axis is in the basis twice, in the loop": (1, 1, 1, 1, 1.0),
    "erase has an overshoot that route has not": (1, 1, 1, 1, 1.0),
    "momentum missing from the checkpoint": (1, 1, 2, 1, 1.0),
    "modules without a basis are skipped": (1, 1, 1, 2, 1.0),
    "AdamW turns the quarantine": (2, 1, 1, 1, 1.0),
}


def violated(fault, tape, **options):
    [result] = verify(fault.subject(), tape=tape, only=[fault.caught_by], profile="quick", **options).results
    assert result.verdict is Verdict.VIOLATED
    return result.worst


@pytest.mark.parametrize("name", MINIMAL)
def test_the_counterexample_of_a_fault_is_minimal(name, small_tape):
    r, k, steps, modules, largest = MINIMAL[name]
    worst = violated(BY_NAME[name], small_tape)
    case = worst.example.case
    bases = [case.V] if isinstance(case, SplitCase) else [*case.basis.values()]
    fed = [case.g[None]] if isinstance(case, SplitCase) else [*case.gradients.values()]
    assert len(bases) <= modules
    assert max(V.shape[1] for V in bases) <= r
    assert max(V.shape[0] for V in bases) <= k
    assert max(len(g) for g in fed) <= steps
    assert max(float(g.abs().max()) for g in fed) <= largest
    assert all(torch.equal(g, g.round()) for g in fed)
    assert "g=[" in worst.counterexample


@pytest.mark.parametrize(
    "name",
    ["quarantine detached", "merged and hooked at once", "running sum exported", "weight trained too"],
)  # fmt: skip
def test_the_counterexample_of_a_broken_adapter_is_one_number(name, small_tape):
    case = violated(BY_NAME[name], small_tape).example.case
    assert case.weight.shape == (1, 1)
    assert case.x.numel() == 1


OF_CASES = [i.id for i in all_invariants() if i.capability == "extraction"]


@pytest.mark.parametrize("name", [fault.name for fault in FAULTS if fault.caught_by in OF_CASES])
def test_the_counterexample_of_a_broken_extraction_is_a_few_pairs(name, small_tape):
    worst = violated(BY_NAME[name], small_tape)
    case = worst.example.case
    assert case.pairs <= 4
    assert case.size <= (36 if name == "axes of rounding noise kept" else 17)
    assert len(case.modules) <= (2 if "global" in name else 1)


@pytest.mark.parametrize(
    "name",
    [f.name for f in FAULTS if f.caught_by.startswith("grpo.") and f.caught_by != "grpo.k3"],  # k3 makes its own input
)
def test_the_counterexample_of_a_broken_loss_is_a_few_tokens(name, small_tape):
    worst = violated(BY_NAME[name], small_tape)
    case = worst.example.case
    assert case.completions.numel() <= 8
    assert case.prompt_tokens <= 2
    assert torch.equal(case.rewards, case.rewards.sign())
    assert "rewards=[" in worst.counterexample


def test_an_example_is_what_its_sentence_says(small_tape):
    worst = violated(BY_NAME["sign of V flipped"], small_tape)
    example = worst.example
    assert example.measurement.margin > 1
    assert torch.equal(example.trial.kept + example.trial.removed, example.case.g)
    figures = f"observed {example.measurement.residual:.3g}, allowed {example.measurement.bound:.3g}"
    assert worst.counterexample == f"{example.case.told}: {figures}"


def test_the_same_run_finds_the_same_counterexample(small_tape):
    fault = BY_NAME["only the strongest axis is removed"]
    one, other = (violated(fault, small_tape) for _ in range(2))
    assert one.counterexample == other.counterexample
    assert complexity(one.example.case) == complexity(other.example.case)


def test_without_shrinking_the_smallest_recorded_case_is_shown(small_tape):
    fault = BY_NAME["only the strongest axis is removed"]
    large, small = (violated(fault, small_tape, shrink=shrink) for shrink in (False, True))
    assert "r=5, k=5" in large.counterexample
    assert complexity(small.example.case) < complexity(large.example.case)


def test_a_fault_that_small_cases_do_not_show_is_reduced_from_a_recorded_one(small_tape):
    def wrong_from_ten_coordinates_on(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed * (1 + (len(g) >= 10))

    subject = Subject(name="mine", split=wrong_from_ten_coordinates_on)
    [result] = verify(subject, tape=small_tape, only=["split.conservation"], profile="quick").results
    assert result.worst.example.case.V.shape == (1, 10)


def leaky(g, V):
    removed = V.T @ torch.relu(V @ g)
    return g - removed, 1.001 * removed


@pytest.fixture
def calls(monkeypatch):
    made = []
    original = runner.shrunk
    monkeypatch.setattr(runner, "shrunk", lambda *args, **kw: made.append(args[0].id) or original(*args, **kw))
    return made


def test_only_what_is_red_is_shrunk_and_of_few_settings(small_tape, calls):
    only = {"tape": small_tape, "only": ["split.conservation"], "profile": "quick"}
    subject = Subject(name="mine", split=leaky)
    verify(subject, **only, expected_violations={"split.conservation": "known"})
    verify(replace(subject, claims=all_but("split.conservation")), **only)
    verify(subject, **only, shrink=False)
    assert calls == []
    many = {SplitSetting(overshoot=overshoot): leaky for overshoot in (1.0, 1.25, 1.5, 1.75)}
    verify(Subject(name="mine", split=many), **only)
    assert len(calls) == runner.SHRUNK_SETTINGS < len(many)


def test_the_search_is_bounded_by_a_number_of_evaluations(small_tape):
    count = 0

    def counted(g, V):
        nonlocal count
        count += 1
        return leaky(g, V)

    options = {"tape": small_tape, "only": ["split.conservation"], "profile": "quick"}
    verify(Subject(name="mine", split=counted), **options, shrink=False)
    without, count = count, 0
    verify(Subject(name="mine", split=counted), **options)
    assert without < count <= without + 2 * EVALUATIONS + 3
