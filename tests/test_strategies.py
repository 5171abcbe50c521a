"""What the strategies draw is legal, has every adversarial input in it, and shrinks; a profile draws the same bits."""

import doctest
import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import find, given, settings

from invariants import SuiteError, Verdict, all_invariants, strategies
from invariants.bounds import orthonormality_defect, unit_roundoff
from invariants.cases import build_cases
from invariants.cases.drawn import drawn
from invariants.demands import Demands
from invariants.museum import CORRECT
from invariants.runner import Bench
from invariants.strategies import adapter_cases, gradients, split_cases, step_cases

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def many():
    return drawn(split_cases(), 300, seed=2)


def legal(V):
    rows = V.norm(dim=1)
    norms_are_0_or_1 = bool(((rows == 0) | ((rows - 1).abs() < 1e-12)).all())
    return norms_are_0_or_1 and orthonormality_defect(V) <= 4 * V.numel() * unit_roundoff(torch.float64)


@given(split_cases())
def test_a_split_case_is_one_gradient_and_one_basis(case):
    k, r = case.V.shape
    assert case.g.shape == (r,)
    assert 0 <= k <= r <= 6
    assert case.g.isfinite().all()
    assert legal(case.V)


@given(step_cases())
@settings(max_examples=50)
def test_a_step_case_has_parts_that_fit_and_a_limit_away_from_every_norm(case):
    assert any(V.any() for V in case.basis.values())
    assert case.gradients.keys() == case.basis.keys() == case.start.keys()
    for name, g in case.gradients.items():
        assert g.shape == (case.steps, case.basis[name].shape[1])
        assert case.start[name].shape == g.shape[1:]
        assert legal(case.basis[name])
    norms = torch.cat(list(case.gradients.values()), dim=1).norm(dim=1)
    assert case.max_norm > 0
    if norms.any():
        assert norms.max() > case.max_norm
        assert ((norms / case.max_norm - 1).abs() > unit_roundoff(torch.bfloat16)).all()


@given(adapter_cases())
@settings(max_examples=50)
def test_an_adapter_case_has_distinct_singular_values(case):
    d_out, d_in = case.weight.shape
    singular = torch.linalg.svdvals(case.weight)
    assert case.x.shape[1] == d_in
    assert case.bias is None or case.bias.shape == (d_out,)
    assert case.deployed.shape == case.quarantine.shape == (min(d_out, d_in),)
    assert (singular[:-1] - singular[1:] > 0.05).all()


def smallest(predicate, strategy=None):
    case = find(
        split_cases() if strategy is None else strategy, predicate, settings=settings(max_examples=300, database=None)
    )
    return case.told


def test_what_is_drawn_shrinks_to_what_can_be_read():
    assert smallest(lambda case: True) == "r=1, k=0: g=[0.0], V=[]"
    assert smallest(lambda case: bool((case.V @ case.g < 0).any())) in (
        "r=1, k=1: g=[-1.0], V=[[1.0]]", "r=1, k=1: g=[1.0], V=[[-1.0]]",
    )  # fmt: skip
    turned = smallest(lambda case: bool(((case.V != 0) & (case.V.abs() != 1)).any()))
    assert "0.6" in turned
    steps = smallest(lambda case: case.steps > 1 and any(g.any() for g in case.gradients.values()), step_cases())
    assert steps.startswith("2 steps, a r=1, k=1: a: g=[[")


@pytest.mark.parametrize(
    "special",
    [
        lambda g, V, c: not g.any(),
        lambda g, V, c: bool(c.any()) and torch.allclose(V.T @ c, g, rtol=1e-9, atol=0),
        lambda g, V, c: bool(g.any() and V.any()) and not c.any(),
        lambda g, V, c: len(V) == len(g) > 1,
        lambda g, V, c: len(V) == 0,
        lambda g, V, c: len(V) > 1 and not V.any(dim=1).all(),
        lambda g, V, c: len(g) > 2 and len(g.abs().unique()) == 1,
        lambda g, V, c: len(g) > 2 and int((g != 0).sum()) == 1,
        lambda g, V, c: 0 < float(g.abs().max()) < torch.finfo(torch.float64).tiny,
        lambda g, V, c: 0 < float(g.abs().max()) < torch.finfo(torch.float32).tiny,
        lambda g, V, c: torch.finfo(torch.float32).max ** 0.5 < float(g.abs().max()) < 1e30,
        lambda g, V, c: float(g.abs().max()) > torch.finfo(torch.float64).max ** 0.5,
        lambda g, V, c: bool((c > 0).any() and (c < 0).any()),
        lambda g, V, c: bool(g.all()) and float(g.abs().max()) > 1e20 * float(g.abs().min()),
    ],
    ids=[
        "zero", "in the span", "orthogonal to it", "k = r", "k = 0", "a zero row", "equal magnitudes", "one coordinate",
        "denormal", "denormal in float32", "squares overflow float32", "squares overflow", "both signs",
        "many magnitudes",
    ],
)  # fmt: skip
def test_every_adversarial_input_is_in_the_grid_and_in_what_is_drawn(special, small_tape, many):
    for cases in (build_cases(small_tape, 0, "quick").split, many):
        assert any(special(case.g, case.V, case.V @ case.g) for case in cases)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_correct_split_holds_on_what_is_drawn(small_tape, many, dtype):
    bench = Bench(replace(CORRECT, dtype=dtype), replace(build_cases(small_tape, 0, "quick"), split=many))
    for invariant in all_invariants():
        if invariant.capability == "split":
            result = bench.result(invariant, Demands())
            judged = result.verdict is Verdict.HOLDS
            assert judged or result.worst.reason.startswith("not judged: in this dtype"), result.worst


def test_gradients_of_a_basis_can_be_drawn_alone():
    V = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    assert find(gradients(V, wide=False), lambda g: bool((V @ g > 2).any())).shape == (2,)


def test_a_larger_profile_has_all_that_a_smaller_one_has(small_tape):
    quick, ci, deep = (build_cases(small_tape, 0, profile) for profile in ("quick", "ci", "deep"))
    for capability in ("split", "routed_step", "adapter"):
        sizes = [len(getattr(cases, capability)) for cases in (quick, ci, deep)]
        assert sizes[0] < sizes[1] < sizes[2]


def test_a_few_steps_of_a_tape_are_spread_over_it(small_tape):
    tape = replace(small_tape, gradients={name: g.repeat(10, 1) for name, g in small_tape.gradients.items()})
    labels = [case.label for case in build_cases(tape, 0, "quick").split]
    steps = sorted({int(label.split(",")[1].split()[1]) for label in labels if label.startswith("tape")})
    assert steps[0] == 0
    assert steps[-1] == tape.steps - 1
    assert len(steps) == 3


def test_an_unknown_profile_is_refused(small_tape):
    with pytest.raises(SuiteError, match="must be one of quick, ci, deep"):
        build_cases(small_tape, 0, "thorough")


DIGEST = """
import hashlib, torch
from invariants.cases import build_cases, orthonormal_rows
from reference import Tape
draw = torch.Generator().manual_seed(0)
shapes = {"first": (12, 3), "second": (8, 0)}
tape = Tape(
    gradients={n: torch.randn(3, r, dtype=torch.float64, generator=draw) for n, (r, _) in shapes.items()},
    basis={n: orthonormal_rows(k, r, draw) for n, (r, k) in shapes.items()},
    start={n: torch.zeros(r, dtype=torch.float64) for n, (r, _) in shapes.items()},
)
digest = hashlib.sha256()
cases = build_cases(tape, 5)
for case in (*cases.split, *cases.routed_step, *cases.adapter):
    for part in case.parts:
        digest.update(part.contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


def test_the_same_seed_draws_the_same_bits_in_another_process(small_tape):
    elsewhere = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    digest = hashlib.sha256()
    cases = build_cases(small_tape, 5)
    for case in (*cases.split, *cases.routed_step, *cases.adapter):
        for part in case.parts:
            digest.update(part.contiguous().numpy().tobytes())
    assert elsewhere.stdout.strip() == digest.hexdigest()


def test_the_example_in_the_documentation_runs():
    assert doctest.testmod(strategies) == (0, 2)
