"""Each probe by itself: what it sees, and that it could have come out otherwise."""

import math
import random

import numpy
import pytest
import torch
from handmade_optimizers import (
    Descent,
    NeedsClosure,
    NeedsCurvature,
    NeedsMatrices,
    NeedsModel,
    NeverBuilt,
    SignWithMomentum,
)
from torch.optim import Optimizer

from invariants.errors import SuiteError
from invariants.optimizers import Answer, Candidate, Manner, check_optimizer, survey
from invariants.optimizers.candidate import PLAIN
from invariants.optimizers.conduct import STRUCK
from invariants.optimizers.paths import gap, seeded, sizes, trajectory_bound
from invariants.optimizers.probes import Laboratory, measured
from invariants.optimizers.runs import STORED_AT
from invariants.optimizers.sequences import STEPS, drawn


def probe(name, optimizer, **kwargs):
    candidate = Candidate(name=optimizer.__name__, make=optimizer, kwargs=kwargs, manner=PLAIN)
    return measured(name, Laboratory(candidate, drawn(0)))


class Raising(Descent):
    def step(self, closure=None):
        for group in self.param_groups:
            if not all(p.grad is None or p.grad.isfinite().all() for p in group["params"]):
                raise ValueError("not a number")
        return super().step(closure)


class Skipping(Descent):
    def step(self, closure=None):
        for group in self.param_groups:
            if not all(p.grad is None or p.grad.isfinite().all() for p in group["params"]):
                return None
        return super().step(closure)


class MovingFirst(Descent):
    """Moves a parameter, and then finds out."""

    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            if not all(p.isfinite().all() for p in group["params"]):
                raise ValueError("not a number")


@pytest.mark.parametrize(
    ("optimizer", "answer", "words"),
    [
        (Raising, Answer.HOLDS, "refused: ValueError: not a number"),
        (Skipping, Answer.HOLDS, "skipped"),
        (MovingFirst, Answer.VIOLATED, "swallowed, and then raises ValueError: not a number"),
        (Descent, Answer.VIOLATED, "swallowed: not finite from then on"),
        (SignWithMomentum, Answer.VIOLATED, "swallowed"),
    ],
)
def test_what_becomes_of_a_gradient_that_is_not_finite(optimizer, answer, words):
    finding = probe("nonfinite", optimizer)
    assert finding.answer is answer
    assert words in finding.note
    assert finding.step == (None if answer is Answer.HOLDS else STRUCK)


class StateOutside(Descent):
    """Counts in an attribute, which state_dict does not have; every tenth step is another one."""

    def step(self, closure=None):
        self.count = getattr(self, "count", 0) + 1
        for group in self.param_groups:
            group["lr"] = 0.1 if self.count % 10 == 0 else 0.05
        return super().step(closure)


class Rounded(Descent):
    """Its state goes through a narrower type when it is saved."""

    def state_dict(self):
        state = super().state_dict()
        narrow = {i: {"velocity": s["velocity"].float().double()} for i, s in state["state"].items()}
        return {**state, "state": narrow}


def test_a_state_that_is_not_saved_is_missed_at_the_step_that_needs_it():
    assert probe("resumes", Descent).holds
    finding = probe("resumes", StateOutside)
    assert (finding.answer, finding.step) == (Answer.VIOLATED, 10)
    rounded = probe("resumes", Rounded)
    assert (rounded.answer, rounded.step) == (Answer.VIOLATED, 2)
    assert 0 < rounded.figure < 1e-6
    assert set(STORED_AT) < set(range(1, STEPS))


class Unpicklable(Descent):
    def state_dict(self):
        return {**super().state_dict(), "hook": lambda: None}


def test_a_state_that_cannot_be_stored_does_not_resume():
    finding = probe("resumes", Unpicklable)
    assert finding.answer is Answer.VIOLATED
    assert finding.note.startswith("raises ")


def noisy(source):
    class Noisy(Descent):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in (p for p in group["params"] if p.grad is not None):
                    p.grad = p.grad * (1 + 0.1 * source())
            return super().step(closure)

    return Noisy


@pytest.mark.parametrize(
    "source",
    [lambda: float(torch.rand(())), random.random, lambda: float(numpy.random.rand())],  # noqa: NPY002  (what others use)
    ids=["torch", "random", "numpy"],
)
def test_random_numbers_are_noticed_whatever_generator_they_come_from(source):
    assert probe("repeats", noisy(source)).holds  # the same seed
    finding = probe("draws_nothing", noisy(source))
    assert (finding.answer, finding.step) == (Answer.VIOLATED, 1)


def test_the_callers_random_state_goes_on_as_if_nothing_had_been():
    torch.manual_seed(7)
    random.seed(7)
    numpy.random.seed(7)  # noqa: NPY002  (the generator in question)
    expected = [float(torch.rand(())), random.random(), float(numpy.random.rand())]  # noqa: NPY002  (the same)
    torch.manual_seed(7)
    random.seed(7)
    numpy.random.seed(7)  # noqa: NPY002  (the same)
    with seeded(3):
        torch.rand(5)
        random.random()
        numpy.random.rand()  # noqa: NPY002  (the same)
    assert [float(torch.rand(())), random.random(), float(numpy.random.rand())] == expected  # noqa: NPY002  (the same)


def test_the_scale_of_gradients_and_of_the_learning_rate():
    assert probe("homogeneous", Descent).holds
    assert not probe("scale_free", Descent).holds
    assert probe("scale_free", SignWithMomentum).holds
    assert not probe("homogeneous", SignWithMomentum).holds
    assert "to the power 1" in probe("homogeneous", Descent).note
    assert probe("lr_proportional", SignWithMomentum).holds
    assert not probe("lr_proportional", torch.optim.SGD, lr=0.1, weight_decay=0.1).holds


class Decaying(Descent):
    """Decays what has no gradient, too."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.999)
        return super().step(closure)


def test_none_and_zeros_are_told_apart():
    assert probe("none_inert", Descent).holds
    assert probe("zeros_inert", Descent).holds
    assert not probe("none_inert", Decaying).holds
    finding = probe("none_inert", Decaying)
    assert (finding.step, finding.vector) == (1, "recorded")
    assert not probe("zeros_inert", torch.optim.AdamW).holds  # its decay
    assert probe("zeros_inert", torch.optim.AdamW, weight_decay=0).holds
    assert probe("none_inert", torch.optim.AdamW).holds


class Standing(Descent):
    def step(self, closure=None):
        return None


class Exploding(Descent):
    def step(self, closure=None):
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(1e10)


def test_one_that_stands_still_and_one_that_leaves_the_numbers():
    report = check_optimizer(Standing)
    assert not report.ran
    assert "it moved nothing in 20 steps" in report.problem
    finding = probe("moves_all", Exploding)
    assert finding.answer is Answer.VIOLATED
    assert finding.note == "leaves the finite numbers"
    exploding = check_optimizer(Exploding)
    gradient = exploding.spaces["gradient"]
    assert {f.answer for f in gradient.guarantees.values()} == {Answer.NOT_MEASURED}
    assert gradient.figures is None


@pytest.mark.parametrize(
    ("optimizer", "manner"),
    [
        (NeedsClosure, "closure"), (NeedsCurvature, "graph"), (NeedsMatrices, "matrices"), (NeedsModel, "model"),
    ],
)  # fmt: skip
def test_how_it_wants_to_be_called_is_found_out(optimizer, manner):
    report = check_optimizer(optimizer)
    assert report.ran, report.problem
    assert report.manner == manner
    assert report.holds("additive")  # all of them are momentum, and the curvature is 1 everywhere


def test_one_that_cannot_be_built_has_its_row_with_the_reason():
    found = survey([NeverBuilt, Descent])
    assert found.head == "ran 1 / known 2"
    assert "missing 1 required positional argument: 'horizon'" in found.reports[0].problem
    assert "could not be run" in found.reports[0].advice
    assert check_optimizer((NeverBuilt, {"horizon": 10})).problem == "NotImplementedError: without a word"


def test_a_manner_is_data():
    assert str(Manner(matrices=True, group=(("use_muon", True),))) == "matrices, group use_muon=True"
    assert str(PLAIN) == ""


def test_gaps_are_relative_to_each_vector_and_count_nan_as_no_number():
    one, nan = torch.ones(3, 2, dtype=torch.float64), torch.full((3, 2), math.nan, dtype=torch.float64)
    large = {"large": 1e6 * one, "small": one}
    moved = {"large": 1e6 * one, "small": one.clone()}
    moved["small"][2] += 1e-3
    found = gap(moved, large, 1e-6, sizes(large))
    assert (found.step, found.vector) == (2, "small")
    assert found.figure == pytest.approx(1e-3)
    assert gap({"a": nan}, {"a": nan}, 0.0, {"a": 1.0}).step is None
    assert gap({"a": nan}, {"a": one}, 1.0, {"a": 1.0}).figure == math.inf


def test_the_bound_of_a_trajectory_is_far_from_both_sides():
    """Identities hold to 1e-14 in float64, and fail in the second digit."""
    bound = trajectory_bound(STEPS, torch.float64)
    assert 1e-12 < bound < 1e-9
    assert probe("additive", Descent).figure < 1e-3 * bound
    assert probe("additive", SignWithMomentum).figure > 1e6 * bound


def test_nothing_is_no_survey_and_unknown_names_are_refused():
    with pytest.raises(SuiteError, match="There is no optimizer to measure"):
        survey([])
    with pytest.raises(SuiteError, match="Nothing is called 'erase_mtch'; there are moves_all, additive"):
        survey([Descent], require=["erase_mtch"])


def test_what_is_required_of_all_spaces_or_of_one():
    found = survey([SignWithMomentum], require=["erase_match", "keeps_sum@displacement"])
    assert found.ok
    demanding = survey([SignWithMomentum, NeverBuilt], require=["keeps_sum"])
    assert not demanding.ok
    assert len(demanding.failures) == 2
    assert demanding.failures[0].startswith("SignWithMomentum: keeps_sum@gradient is demanded, and is violated ")
    assert "did not run" in demanding.failures[1]


class OneGroup(Optimizer):
    def __init__(self, params):
        params = list(params)
        if params and isinstance(params[0], dict):
            raise ValueError("one group only")
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.sub_(0.1 * p.grad)


def test_an_optimizer_without_groups_says_so():
    finding = probe("groups_free", OneGroup)
    assert finding.answer is Answer.VIOLATED
    assert "one group only" in finding.note
    assert probe("order_free", OneGroup).holds
