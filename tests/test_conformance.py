"""What is measured of optimizers agrees with the theory, on hand-written ones and on torch's own."""

import functools

import pytest
import torch
from handmade_optimizers import Averaged, Descent, NeedsClosure, SignWithMomentum, TrustTogether, WarmsUp

from invariants.optimizers import Answer, check_optimizer
from projected_grpo import Basis, RoutedOptimizer, VectorPair
from projected_grpo.cli.router import Routed

MEMORY = 0.9  # of Descent


@functools.cache
def report(optimizer, **kwargs):
    return check_optimizer((optimizer, kwargs))


def holding(found, *, space="gradient"):
    return {name for name, finding in found.spaces[space].guarantees.items() if finding.holds}


def test_one_that_is_linear_keeps_the_sum_and_the_span_with_two_states():
    found = report(Descent)
    assert found.holds("additive")
    assert found.holds("separable")
    assert holding(found) == {"keeps_sum", "erase_match", "span", "no_update_leak", "no_displacement_leak"}
    assert "keep the sum and match erase" in found.advice


def test_one_that_is_right_and_not_linear_matches_erase_alone():
    found = report(SignWithMomentum)
    assert not found.holds("additive")
    assert found.holds("separable")
    assert holding(found) == {"erase_match"}
    assert "match erase but over-move in training by" in found.advice
    assert "use space='displacement'" in found.advice


def test_one_that_couples_parameters_does_not_match_erase():
    found = report(TrustTogether)
    assert not found.holds("separable")
    assert found.probes["separable"].vector == "drawn"  # the one whose gradients stayed what they were
    assert not found.holds("erase_match@gradient")
    # Although it is not linear: its one factor is made of the norm of both parts together, which is that of g.
    assert found.holds("keeps_sum@gradient")
    assert not found.holds("additive")
    assert "do not match erase, as it couples parameters" in found.advice


def test_one_that_warms_up_is_not_taken_for_linear():
    finding = report(WarmsUp).probes["additive"]
    assert finding.answer is Answer.VIOLATED
    assert finding.step == 41  # to the step


def test_radam_is_not_taken_for_linear_although_it_is_while_it_warms_up():
    finding = report(torch.optim.RAdam).probes["additive"]
    assert finding.answer is Answer.VIOLATED
    assert finding.step == 6  # with beta2 = .999 the rectification sets in after five steps


@pytest.mark.parametrize(
    ("optimizer", "kwargs", "linear"),
    [
        (torch.optim.SGD, {"lr": 0.1}, True),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, True),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}, True),
        (torch.optim.AdamW, {}, False),
        (torch.optim.Adagrad, {}, False),
        (torch.optim.RMSprop, {}, False),
        (torch.optim.Rprop, {}, False),
    ],
    ids=str,
)
def test_the_sum_is_kept_by_two_states_just_where_the_optimizer_is_linear(optimizer, kwargs, linear):
    found = check_optimizer((optimizer, kwargs))
    assert found.holds("additive") is linear
    assert found.holds("keeps_sum@gradient") is linear
    assert found.holds("separable")
    assert found.holds("erase_match@gradient")


@pytest.mark.parametrize("optimizer", [Descent, SignWithMomentum, TrustTogether, torch.optim.AdamW, torch.optim.Adam])
def test_at_a_point_every_optimizer_keeps_the_sum_matches_erase_and_confines_the_quarantine(optimizer):
    found = report(optimizer)
    for space in ("update", "displacement"):
        for name in ("keeps_sum", "erase_match", "span"):
            finding = found.spaces[space].guarantees[name]
            assert finding.holds, (space, name, str(finding))
            assert finding.figure <= 1e-12
    assert holding(found, space="update") >= {"no_update_leak", "no_displacement_leak", "refreshed_update"}
    assert holding(found, space="displacement") >= {
        "no_displacement_leak", "no_ratchet", "refreshed_span", "refreshed_displacement",
    }  # fmt: skip
    assert found.spaces["displacement"].figures.leak > 0.1  # its updates leak, and that is shown


def test_noise_drives_the_deployed_vectors_apart_as_the_theory_says():
    """relu of noise has the mean s / sqrt(2 pi), so after t steps a mean of sqrt(t / 2 pi) random walks: 4 of them in
    100 steps, give or take the standard error of 8 axes. Rectifying an update that is averaged with beta has
    sqrt((1 - beta) / (1 + beta)) of it, and a displacement none that grows."""
    figures = {space: report.figures for space, report in report(Descent).spaces.items()}
    walks = (100 / (2 * torch.pi)) ** 0.5
    error = walks * 8**-0.5  # of the unit, a root mean square over 8 axes
    assert abs(figures["gradient"].drift - walks) <= 3 * error
    share = ((1 - MEMORY) / (1 + MEMORY)) ** 0.5
    assert figures["update"].drift / figures["gradient"].drift == pytest.approx(share, rel=0.25)
    assert abs(figures["displacement"].drift) < 1
    assert figures["gradient"].drift_quarantine < -walks / 2  # the other way


def test_under_adam_the_quarantine_drifts_farther_than_the_deployed_vectors():
    figures = report(torch.optim.AdamW).spaces["gradient"].figures
    assert -figures.drift_quarantine > 1.5 * figures.drift


def test_decay_and_clips_do_what_they_do():
    plain = report(torch.optim.SGD, lr=0.1)
    assert {name for name in plain.changed["decay 0.1"] if "@" in name} == {
        "no_update_leak@gradient", "no_displacement_leak@gradient",
    }  # fmt: skip
    assert set(plain.changed["clip before"]) == set()
    assert set(plain.changed["clip joint"]) == {"erase_match@gradient"}
    assert plain.changed["float32"] == {}
    decaying = report(torch.optim.AdamW)
    assert decaying.changed["without decay"]["zeros_inert"][1].holds


def test_a_momentum_that_outlives_a_refresh_leaks_along_the_new_basis():
    assert not report(Descent).holds("refreshed_update@gradient")
    assert report(torch.optim.SGD, lr=0.1).holds("refreshed_update@gradient")
    assert report(Descent).spaces["gradient"].guarantees["refreshed_update"].step == 101


def test_what_happens_where_no_split_can_reach_is_recognised():
    asks_twice = report(NeedsClosure)
    assert asks_twice.probes["evaluates_once"].figure == 2
    assert "don't route with it" in asks_twice.advice
    averaged = report(Averaged)
    assert averaged.probes["only_steps_move"].note == "eval() moves them"
    assert "can't be split reliably" in averaged.advice


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW, torch.optim.RAdam, Descent, TrustTogether])
def test_explain_claims_nothing_that_the_measurement_denies(optimizer):
    """RoutedOptimizer.explain() reads its claims off smaller probes of its own."""
    found = report(optimizer)
    for space, measured in found.spaces.items():
        pair = VectorPair(*(torch.nn.Parameter(torch.zeros(4, dtype=torch.float64)) for _ in range(2)))
        basis = Basis({"m": torch.eye(2, 4, dtype=torch.float64)})
        claims = RoutedOptimizer(optimizer([*pair]), {"m": pair}, basis, space=space).guarantees()
        shared = claims.keys() & measured.guarantees.keys()
        assert len(shared) == 9
        claimed = {name for name in shared if claims[name].holds}
        assert claimed <= holding(found, space=space)
        if optimizer is not TrustTogether:  # one factor from the norm of both parts is one from the norm of g
            # and denies little that was measured: a short run may keep what is no theorem
            assert holding(found, space=space) - claimed <= {
                "no_displacement_leak",
                "no_update_leak",
                "refreshed_update",
            }


def test_the_packages_routed_step_does_what_the_specifications_does():
    for optimizer in (torch.optim.AdamW, torch.optim.SGD, TrustTogether):
        found = check_optimizer(optimizer, router=Routed)
        assert all(report.router.holds for report in found.spaces.values()), found.name
        assert max(report.router.figure for report in found.spaces.values()) <= 1e-12


def test_a_routed_step_that_is_wrong_is_told_apart_and_one_that_refuses_is_heard():
    class Flipped(Routed):
        def __init__(self, candidate, arm, start, basis):
            super().__init__(candidate, arm, start, {name: -V for name, V in basis.items()})

    wrong = check_optimizer(torch.optim.SGD, router=Flipped)
    assert {report.router.answer for report in wrong.spaces.values()} == {Answer.VIOLATED}
    refusing = check_optimizer(Averaged, router=Routed)
    assert refusing.spaces["gradient"].router.holds
    for space in ("update", "displacement"):
        assert refusing.spaces[space].router.answer is Answer.NOT_MEASURED
        assert "has an eval() that moves parameters outside step()" in refusing.spaces[space].router.note


def test_the_same_seed_gives_the_same_figures_and_another_one_others():
    first, again, other = (check_optimizer(torch.optim.Adam, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert {n: f.answer for n, f in first.findings.items()} == {n: f.answer for n, f in other.findings.items()}
