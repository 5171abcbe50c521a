"""The probes of optimizers have teeth: each catches a fault that is named for it, and accuses no correct optimizer."""

import functools
import math
from dataclasses import replace

import pytest
import torch

from invariants import Subject, Verdict
from invariants.museum import CORRECT, EXEMPLARS, FAULTS, OptimizerFault
from invariants.museum.__main__ import GUIDE
from invariants.museum.descent import Descent
from invariants.museum.exemplars import PLAIN
from invariants.museum.gates import row_problems
from invariants.museum.matrix import Row, kill_matrix, pinned
from invariants.museum.optimizer import FirstLook, RestoredBackwards
from invariants.museum.picture import shade
from invariants.museum.properties import GUARANTEED, NOWHERE, PROPERTIES, cells, margin, space_of
from invariants.optimizers import GUARANTEES, PROBES, Answer, Candidate, Finding, check_optimizer
from invariants.optimizers.loop import PointLoop

BROKEN = [fault for fault in FAULTS if isinstance(fault, OptimizerFault)]
each_fault = pytest.mark.parametrize("fault", BROKEN, ids=[fault.name for fault in BROKEN])
each_exemplar = pytest.mark.parametrize("exemplar", EXEMPLARS, ids=[exemplar.name for exemplar in EXEMPLARS])


@functools.cache
def row(fault: OptimizerFault) -> Row:
    return Row(fault, fault.cells(0))


@pytest.mark.long
@each_fault
def test_a_broken_optimizer_is_caught_by_name_and_whatever_else_it_trips_has_its_reason(fault):
    assert list(row_problems(row(fault))) == []
    assert sorted(row(fault).trips) == pinned()[fault.name]


@pytest.mark.long
@each_fault
def test_the_catch_says_where_or_how(fault):
    caught = row(fault).cells[fault.caught_by]
    assert caught.reason
    assert caught.margin is None or caught.margin > 1


@each_fault
def test_a_broken_optimizer_is_one_method_or_one_argument_away_from_a_correct_one(fault):
    broken, correct = fault.candidate, fault.like.candidate
    own = [
        value for value in vars(broken.make).values() if getattr(value, "__qualname__", "") != Descent.step.__qualname__
    ]
    methods = 0 if broken.make is correct.make else sum(map(callable, own))  # torch writes the inherited step there too
    arguments = len(broken.kwargs.items() - correct.kwargs.items())
    assert methods + arguments + (fault.loop is not PointLoop) == 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
@each_exemplar
def test_a_correct_optimizer_has_what_it_does_not_lack_and_lacks_nothing_that_it_has(exemplar, seed):
    found = exemplar.cells(seed)
    assert {id: cell for id, cell in found.items() if cell.verdict is not Verdict.HOLDS} == {}
    assert found.keys() == set(PROPERTIES) - exemplar.lacks.keys()


def test_every_probe_and_every_guarantee_has_a_fault_and_something_correct_that_has_it():
    looked_at = {id.removeprefix("conformance.").partition("@")[0] for id in PROPERTIES}
    assert looked_at == {*PROBES, *GUARANTEES}
    assert {fault.caught_by for fault in BROKEN} == set(PROPERTIES)
    assert set().union(*(set(PROPERTIES) - exemplar.lacks.keys() for exemplar in EXEMPLARS)) == set(PROPERTIES)


@each_exemplar
def test_no_optimizer_gives_in_gradient_space_what_is_looked_at_in_displacement_space(exemplar):
    report = check_optimizer(exemplar.candidate)
    assert not any(report.holds(f"{guarantee}@gradient") for guarantee in NOWHERE)
    assert all(report.holds(f"{guarantee}@displacement") for guarantee in NOWHERE)
    assert {name for name in GUARANTEES if space_of(name) == "displacement"} == set(NOWHERE)


def test_the_guide_says_what_correct_optimizers_lack_and_where_guarantees_are_looked_at():
    text = GUIDE.read_text()
    for exemplar in EXEMPLARS:
        assert f"**{exemplar.name}** lacks" in text
        assert all(f"- `{id}`: {why}" in text for id, why in exemplar.lacks.items())
    assert all(f"- {guarantee}: {why}" in text for guarantee, why in NOWHERE.items())
    assert all(f"caught by `{fault.caught_by}`; one change away from {fault.beside}." in text for fault in BROKEN)


@pytest.mark.parametrize("make", [FirstLook, RestoredBackwards])
def test_one_run_of_everything_at_once_hides_neither_a_bare_generator_nor_a_group_of_several(make):
    """Groups of one would: their list is no generator, and backwards they are what they are forwards."""
    [fault] = [fault for fault in BROKEN if fault.candidate.make is make]
    assert row(fault).trips == [fault.caught_by]


def test_what_is_said_to_be_lacking_and_is_there_is_an_accusation():
    modest = replace(PLAIN, lacks={**PLAIN.lacks, "conformance.additive": "so they say"})
    cell = modest.cells(0)["conformance.additive"]
    assert (cell.verdict, cell.reason) == (Verdict.UNEXPECTEDLY_HOLDS, "so they say")


def test_what_is_not_claimed_is_not_looked_at():
    [fault] = [fault for fault in BROKEN if fault.caught_by == "conformance.scale_free"]
    found = row(fault).cells
    assert list(found) == list(PROPERTIES)
    silent = {id: cell.reason for id, cell in found.items() if cell.verdict is Verdict.NOT_APPLICABLE}
    assert silent == fault.like.lacks
    assert shade(row(fault), "conformance.additive") == 0


class FailsWithFour(Descent):
    """Two vectors are fine; the two sets of a routed step are not."""

    def refuse_non_finite(self):
        if len(self.gradients()) == 4:
            raise RuntimeError("four are too many")


def test_an_optimizer_that_raises_under_routing_is_an_error_and_no_catch():
    candidate = Candidate(name="fails with four", make=FailsWithFour)
    found = cells(candidate, PointLoop, 0)
    assert found["conformance.additive"].verdict is Verdict.HOLDS
    assert {found[id].verdict for id in GUARANTEED} == {Verdict.ERROR}
    assert found["conformance.span@gradient"].reason == "RuntimeError: four are too many"
    fault = OptimizerFault(name="x", caught_by="conformance.span@gradient", candidate=candidate, like=PLAIN)
    assert any("is not caught by conformance.span@gradient: error" in p for p in row_problems(Row(fault, found)))


def test_a_bound_of_zero_asks_for_equal_bits():
    def of(figure, bound):
        return margin(Finding(answer=Answer.VIOLATED, figure=figure, bound=bound))

    assert (of(1e-300, 0.0), of(0.0, 0.0), of(3.0, 2.0), of(None, 0.0), of(1.0, None)) == (math.inf, 0, 1.5, None, None)


def test_the_hall_of_optimizers_stands_beside_the_capabilities():
    subject = next(fault for fault in FAULTS if fault.caught_by == "split.purity")
    correct = Subject(name="correct", split=CORRECT.split)
    matrix = kill_matrix([BROKEN[0], subject], correct=correct, exemplars=[PLAIN])
    assert list(matrix.halls) == ["split", "optimizer"]
    assert matrix.judged >= set(PROPERTIES) - PLAIN.lacks.keys()
    assert matrix.correct["descent"].keys() == set(PROPERTIES) - PLAIN.lacks.keys()
    assert (BROKEN[0].beside, subject.beside) == ("descent", None)


def test_the_loop_and_the_foreach_path_of_what_is_correct_are_the_same_bits():
    torch.manual_seed(0)
    parameters = [[torch.nn.Parameter(torch.ones(n, dtype=torch.float64)) for n in (3, 5)] for _ in range(2)]
    for foreach, vectors in zip((False, True), parameters, strict=True):
        optimizer = Descent(vectors, momentum=0.9, weight_decay=0.1, foreach=foreach)
        for t in range(5):
            for p in vectors:
                p.grad = torch.full_like(p, 0.1 * t)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(*parameters, strict=True))
