"""The theory on every optimizer that torch and pytorch_optimizer have; some minutes (make test-optimizers)."""

import resource
from dataclasses import replace

import pytest

from invariants.optimizers import Answer, check_optimizer, everything, named, survey
from invariants.optimizers.reports.rows import deviation
from projected_grpo.cli.router import Routed

pytestmark = pytest.mark.survey

ESTIMATE_GLOBALLY = ("Prodigy", "DAdaptAdaGrad", "DAdaptAdam", "DAdaptAdan", "DAdaptLion", "DAdaptSGD")
WARM_UP = ("RAdam", "ScheduleFreeRAdam", "Ranger", "Ranger21", "AdaShift", "SWATS")
RANDOM = ("Kron", "Magma", "SophiaH", "Gravity")


@pytest.fixture(scope="module")
def found():
    return survey(everything(), router=Routed)


@pytest.fixture(scope="module")
def ran(found):
    return [report for report in found.reports if report.ran]


def spaces(report, *names):
    return {space: report.spaces[space] for space in names}


def test_at_least_120_of_the_package_run_and_the_others_say_why(found):
    package = [report for report in found.reports if report.source == "pytorch_optimizer"]
    assert len(package) >= 128
    assert sum(report.ran for report in package) >= 120
    for report in found.reports:
        assert report.ran or (report.problem and report.why)


def test_at_a_point_all_keep_the_sum_match_erase_and_confine_the_quarantine(ran):
    """T12 and T12': to 1e-12."""
    for report in ran:
        for space, found in spaces(report, "update", "displacement").items():
            for name in ("keeps_sum", "erase_match", "span"):
                finding = found.guarantees[name]
                assert finding.holds, (report.name, space, name, str(finding))
                assert finding.figure <= 1e-12


def test_no_update_is_hackward_in_update_space_and_no_displacement_in_displacement_space(ran):
    for report in ran:
        assert report.holds("no_update_leak@update"), report.name
        assert report.holds("no_displacement_leak@displacement"), report.name
        assert report.holds("no_ratchet@displacement"), report.name


def test_the_packages_routed_step_agrees_or_refuses_with_a_reason(ran):
    agreed = 0
    for report in ran:
        for space, found in report.spaces.items():
            assert found.router.answer is not Answer.VIOLATED, (report.name, space, str(found.router))
            assert found.router.holds or found.router.note
            agreed += found.router.holds
    assert agreed > 2.5 * len(ran)


def test_what_is_linear_keeps_the_sum_and_what_is_separable_matches_erase(ran):
    """T9 and T10, in the direction that is a theorem for single runs."""
    for report in ran:
        probes, gradient = report.probes, report.spaces["gradient"].guarantees
        if probes["additive"].holds and probes["separable"].holds:
            assert gradient["keeps_sum"].holds, report.name
        if probes["separable"].holds and probes["draws_nothing"].holds:
            assert gradient["erase_match"].holds, report.name
    linear = [report.name for report in ran if report.probes["additive"].holds]
    assert {"SGD", "SGDW", "AggMo", "QHM", "AccSGD"} <= set(linear)
    assert len(linear) < 25


def test_a_global_estimate_is_seen_as_coupling_and_runs_away_in_gradient_space(ran):
    for report in ran:
        if report.name in ESTIMATE_GLOBALLY:
            assert not report.holds("separable"), report.name
            assert not report.holds("erase_match@gradient"), report.name
            assert deviation(report) > 10, report.name


def test_a_warm_up_is_not_taken_for_linear(ran):
    warming = [report for report in ran if report.name in WARM_UP]
    assert len(warming) >= 6
    assert not any(report.holds("additive") for report in warming)


def test_what_moves_or_evaluates_elsewhere_is_recognised(ran):
    elsewhere = {
        report.name for report in ran if not (report.holds("only_steps_move") and report.holds("evaluates_once"))
    }
    assert elsewhere >= {
        "ScheduleFreeSGD",
        "ScheduleFreeAdamW",
        "ScheduleFreeRAdam",
        "LBFGS",
        "BSAM",
        "LOMO",
        "AdaLOMO",
    }


def test_no_quarantine_moves_without_a_gradient(ran):
    """T13."""
    assert [report.name for report in ran if not report.holds("none_inert")] == []


@pytest.mark.parametrize("name", [*RANDOM, "Prodigy", "SOAP"])
def test_the_same_seed_gives_the_same_bits(name):
    first, again = (check_optimizer(named(f"pytorch_optimizer:{name}"), router=Routed) for _ in range(2))
    assert repr(replace(first, seconds=0.0)) == repr(replace(again, seconds=0.0))  # NaN equals NaN in words
    assert first.holds("draws_nothing") is (name not in RANDOM)


def test_memory_stays_below_a_gigabyte_and_a_half(found):
    assert found.ran
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1.5 * 2**20  # KiB
