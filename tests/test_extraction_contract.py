"""What the suite hands an extraction, what it takes back, and what it does not ask of every one."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from invariants import ContrastiveProblem, ExtractionSetting, Subject, Verdict, all_invariants, verify
from invariants.cases.extraction import contrasts
from invariants.museum import CORRECT
from invariants.museum.extraction import Extraction
from invariants.trials import ExtractionTrial

DTYPES = [torch.float64, torch.float32]
CASES = {case.label: case for case in contrasts(0)}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def trial_of(case, function=CORRECT.extraction, *, dtype=torch.float64, setting=None) -> ExtractionTrial:
    return ExtractionTrial(function, setting=setting or ExtractionSetting(), case=case, dtype=dtype)


def verdicts(subject, small_tape):
    own = [i.id for i in all_invariants() if i.capability == "extraction"]
    return {r.invariant.id: r.verdict for r in verify(subject, tape=small_tape, only=own).results}


class ByGramMatrix(Extraction):
    def decomposed(self, D):
        values, vectors = torch.linalg.eigh(D.T @ D)
        n = min(D.shape)
        return values.flip(0).clamp(min=0).sqrt()[:n], vectors.flip(1).T[:n]

    def rounding(self, S, D):
        return max(D.shape) * math.sqrt(torch.finfo(D.dtype).eps) * S[0]  # squaring halves the digits


class ByBackward(Extraction):
    def gradients(self, problem):
        vectors = [*problem.deployed.values(), *problem.quarantine.values()]
        held = [vector.grad for vector in vectors]
        try:
            return super().gradients(problem)
        finally:
            for vector, gradient in zip(vectors, held, strict=True):
                vector.grad = gradient

    def gradient(self, loss, vectors):
        for vector in vectors.values():
            vector.grad = None
        loss().backward()
        return {name: vector.grad for name, vector in vectors.items()}


class InItsOwnDtype(Extraction):
    def differences(self, hack, clean):
        return torch.stack(hack) - torch.stack(clean)


class InFloat32(Extraction):
    def differences(self, hack, clean):
        return super().differences(hack, clean).float()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("other", [ByGramMatrix, ByBackward, InItsOwnDtype])
def test_other_ways_to_the_same_basis_hold(other, dtype, small_tape):
    found = verdicts(Subject(name="other", extraction=other(), dtype=dtype), small_tape)
    assert set(found.values()) == {Verdict.HOLDS}


def test_digits_that_are_lost_inside_are_missed(small_tape):
    found = verdicts(Subject(name="float32 inside", extraction=InFloat32()), small_tape)
    assert found["extraction.isolation"] is Verdict.VIOLATED


@each_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_losses_have_the_gradients_that_the_bounds_are_about(case, dtype):
    trial = trial_of(case, dtype=dtype)
    for live, exact in ((False, trial.exact), (True, trial.exact_live)):
        handed = trial.handed(live=live)
        for j, (hack, clean) in enumerate(handed.problem.pairs):
            vectors = list(handed.deployed.values())
            there, here = torch.autograd.grad(hack(), vectors), torch.autograd.grad(clean(), vectors)
            for name, h, c in zip(handed.deployed, there, here, strict=True):
                assert (h.double() - c.double() - exact[name].D[j]).norm() <= exact[name].rows_off[j]


@each_case
def test_inside_an_ablation_the_losses_read_the_deployed_vectors_alone(case):
    trial = trial_of(case)
    handed, dead = trial.handed(live=True), trial.handed()
    loss, without = handed.problem.pairs[0][0], dead.problem.pairs[0][0]
    with handed.problem.ablated(), handed.problem.ablated():
        assert torch.equal(loss(), without())
    assert handed.depth == 0
    assert not torch.equal(loss(), without())


@each_case
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_axis_of_every_case_can_be_judged_but_where_the_vote_is_close(case, dtype):
    trial = trial_of(case, dtype=dtype)
    for name, exact in trial.exact.items():
        assert exact.countable
        assert exact.turns.isfinite().all()
        assert (exact.turns < 0.01).all()
        assert trial.sides(name).abs().sum() >= exact.count - 1
    assert any(exact.count for exact in trial.exact.values())


@pytest.mark.parametrize(
    "returned",
    [
        lambda problem: None,
        lambda problem: {},
        lambda problem: dict.fromkeys(problem.deployed),
        lambda problem: {name: p.detach() for name, p in problem.deployed.items()},
        lambda problem: {name: torch.zeros(1, len(p) + 1) for name, p in problem.deployed.items()},
        lambda problem: {name: torch.zeros(1, len(p), dtype=torch.int64) for name, p in problem.deployed.items()},
    ],
    ids=["nothing", "no module", "no tensor", "a vector", "another r", "integers"],
)
def test_what_is_no_basis_is_an_error_that_says_so(returned, small_tape):
    report = verify(Subject(name="none", extraction=returned), tape=small_tape, only=["extraction.span"])
    [result] = report.results
    assert result.verdict is Verdict.ERROR
    assert "extraction " in result.worst.reason


def test_zero_rows_may_stand_for_axes_that_are_left_out(small_tape):
    def padded(problem: ContrastiveProblem) -> Mapping[str, Tensor]:
        axes = CORRECT.extraction(problem)
        return {name: torch.cat([V, V.new_zeros(problem.k - len(V), V.shape[1])]) for name, V in axes.items()}

    assert set(verdicts(Subject(name="padded", extraction=padded), small_tape).values()) == {Verdict.HOLDS}


def test_what_a_setting_does_not_have_is_not_asked_for(small_tape):
    own = ExtractionSetting(floors=(), tie=None)
    assert own.label == "no floor, own rule for ties"
    assert ExtractionSetting().label == "relative and global floor"
    found = verdicts(Subject(name="plain", extraction={own: CORRECT.extraction}), small_tape)
    silent = {id for id, verdict in found.items() if verdict is Verdict.NOT_APPLICABLE}
    assert silent == {"extraction.noise_floor", "extraction.tie"}
    assert {verdict for id, verdict in found.items() if id not in silent} == {Verdict.HOLDS}


def test_a_floor_that_is_not_named_stays_zero(small_tape):
    def relative_only(problem: ContrastiveProblem) -> Mapping[str, Tensor]:
        assert problem.global_floor == 0.0
        return CORRECT.extraction(problem)

    setting = ExtractionSetting(floors=("relative",))
    found = verdicts(Subject(name="relative", extraction={setting: relative_only}), small_tape)
    assert set(found.values()) == {Verdict.HOLDS}
