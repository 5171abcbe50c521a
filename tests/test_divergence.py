"""The stage at which a loop parts from the specification is the one that its fault is in."""

from dataclasses import replace

import pytest
import torch

from invariants.cases import synthetic_steps
from invariants.divergence import first_divergence
from invariants.museum import CORRECT, FAULTS
from invariants.subjects.reference import subject as specification
from invariants.trials import StepTrial

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
FAULT = {fault.name: fault for fault in FAULTS}
CASES = {case.label: case for case in synthetic_steps(seed=0)}
NOISE, AWAY_FROM_ZERO = CASES["noise"], CASES["away from zero"]


def trial(subject, case=NOISE, dtype=torch.float64, **changed):
    setting, factory = next(iter(subject.settings("routed_step").items()))
    return StepTrial(factory, setting=replace(setting, **changed), case=case, dtype=dtype)


def hiding(factory):
    """The same loop, which does not show what it feeds."""

    def make(*args, **options):
        made = factory(*args, **options)
        return replace(made, step=lambda g: made.step(g)[:2])

    return make


@DTYPES
def test_a_correct_loop_never_parts(dtype):
    for case in synthetic_steps(seed=0):
        assert first_divergence(trial(CORRECT, case, dtype)) is None
        hidden = trial(CORRECT, case, dtype)
        assert first_divergence(replace(hidden, factory=hiding(hidden.factory))) is None
        assert first_divergence(trial(CORRECT, case, dtype, reference=None)) is None


@DTYPES
def test_the_specification_never_parts_from_itself(dtype):
    for setting, factory in specification().settings("routed_step").items():
        assert first_divergence(StepTrial(factory, setting=setting, case=NOISE, dtype=dtype)) is None


STAGES = {
    "clip covers the deployed set only": "clip",
    "erase is clipped by a norm without the removed part": "clip",
    "a generator of gradients is exhausted by the norm": "clip",
    "clip counts the quarantine's duplicate gradient": "clip",
    "clip per module": "clip",
    "normalised instead of clipped": "clip",
    "clip configured and never passed on": "clip",
    "an axis is in the basis twice, in the loop": "split",
    "erase has an overshoot that route has not": "split",
    "modules without a basis are skipped": "split",
    "the quarantine's gradient is zeros instead of None": "split",
    "AdamW with two states": "step",
    "dampening that nobody asked for": "moments",
    "weight decay undoes anti-hack moves": "moments",
    "weight decay on the quarantine only": "ablation",
}


@DTYPES
@pytest.mark.parametrize("name", STAGES)
def test_the_stage_named_is_the_one_that_the_fault_is_in(name, dtype):
    found = first_divergence(trial(FAULT[name].subject(), dtype=dtype))
    assert found.stages == (STAGES[name],)
    assert found.module in NOISE.gradients
    assert found.residual > found.allowed or found.text.endswith("is zeros, not None")


def test_decay_shows_in_the_first_step_where_there_is_something_to_decay():
    decay = FAULT["weight decay undoes anti-hack moves"].subject()
    found = first_divergence(trial(decay, AWAY_FROM_ZERO))
    assert (found.step, found.stages) == (0, ("step",))


@pytest.mark.parametrize(
    "name",
    ["momentum missing from the checkpoint", "momenta of the two sets exchanged by a restore",
     "non-finite gradients are not refused", "vanilla splits and puts together again"],
)  # fmt: skip
def test_a_fault_beside_the_plain_run_does_not_part_in_it(name):
    assert first_divergence(trial(FAULT[name].subject())) is None


HIDDEN = {
    "clip per module": ("clip",),
    "clip covers the deployed set only": ("clip",),
    "dampening that nobody asked for": ("moments",),  # it parts under none, where nothing is split
    "erase has an overshoot that route has not": ("split", "step"),
    "an axis is in the basis twice, in the loop": ("split", "step"),
    "weight decay on the quarantine only": ("split", "ablation"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_cannot_be_told_apart_is_said_where_the_fed_gradients_are_not_shown(name):
    shown = trial(FAULT[name].subject())
    found = first_divergence(replace(shown, factory=hiding(shown.factory)))
    assert found.stages == HIDDEN[name]
    assert ("look alike" in found.text) == (len(found.stages) > 1)


def test_without_a_reference_what_is_fed_and_the_arms_are_still_compared():
    clipped = trial(FAULT["clip per module"].subject(), reference=None)
    assert first_divergence(clipped).stages == ("clip",)
    erased = trial(FAULT["erase has an overshoot that route has not"].subject(), reference=None)
    assert first_divergence(erased).stages == ("split",)
    assert first_divergence(trial(FAULT["dampening that nobody asked for"].subject(), reference=None)) is None


def test_the_text_is_one_line_that_names_step_module_arm_and_stage():
    found = first_divergence(trial(FAULT["an axis is in the basis twice, in the loop"].subject()))
    assert found.text == (
        f"step 0, module {found.module!r} under erase, stage split: "
        f"fed kept differs by {found.residual:.3g}, allowed {found.allowed:.2g}"
    )


def test_outside_gradient_space_a_sum_that_agrees_blames_the_split():
    settings = specification().settings("routed_step")
    setting, factory = next((s, f) for s, f in settings.items() if s.space == "update" and s.optimizer == "SGD")

    def leaky(start, basis, **options):
        nothing = {name: torch.zeros_like(V) for name, V in basis.items()}
        return factory(start, nothing, **options)

    found = first_divergence(StepTrial(leaky, setting=setting, case=NOISE, dtype=torch.float64))
    assert found.stages == ("split",)
    route_only = replace(setting, interventions=("route",))
    found = first_divergence(StepTrial(leaky, setting=route_only, case=NOISE, dtype=torch.float64))
    assert found.stages == ("split",)
