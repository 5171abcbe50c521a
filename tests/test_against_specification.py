"""torch's SGD and AdamW in every implementation, against the specification, in units in the last place."""

from dataclasses import replace

import pytest
import torch

from invariants.optimizers import Answer, against
from invariants.optimizers.against import TWINS, against_reference


@pytest.fixture(scope="module")
def compared():
    return against_reference()


def test_all_implementations_of_this_machine_agree_with_the_specification(compared):
    judged = [each for each in compared if each.finding.answer is not Answer.NOT_MEASURED]
    assert all(each.finding.holds for each in judged), [str(each) for each in judged if not each.finding.holds]
    assert {each.implementation for each in judged} >= {"loop", "foreach", "fused"}
    assert {each.dtype for each in judged} == {"float64", "float32"}
    assert {each.twin for each in judged} == {twin.name for twin in TWINS}
    assert all(0 < each.finding.figure < each.finding.bound for each in judged)


def test_what_this_machine_lacks_says_so(compared):
    missing = [each for each in compared if each.finding.answer is Answer.NOT_MEASURED]
    assert {each.implementation for each in missing} <= {"capturable"}
    assert all(each.finding.note for each in missing)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_hyperparameter_that_is_off_by_a_hundredth_is_seen(monkeypatch, dtype):
    [twin] = [twin for twin in TWINS if twin.name == "AdamW"]
    off = replace(twin, kwargs={**twin.kwargs, "betas": (0.909, 0.999)})
    monkeypatch.setattr(against, "TWINS", (off,))
    found = [each.finding for each in against_reference() if each.dtype == dtype and each.implementation == "loop"]
    assert [finding.answer for finding in found] == [Answer.VIOLATED]
    assert found[0].step is not None
    assert found[0].figure > 1e3


def test_figures_are_in_units_of_the_largest_value_so_far():
    expected = {"v": torch.tensor([[4.0], [0.0]], dtype=torch.float64)}
    path = {"v": torch.tensor([[4.0], [torch.finfo(torch.float32).eps * 4]])}  # one ulp of 4, in float32
    finding = against.in_ulp(path, expected, {"v": torch.tensor([0.0, 2.0])})
    assert (finding.figure, finding.answer) == (1.0, Answer.HOLDS)
