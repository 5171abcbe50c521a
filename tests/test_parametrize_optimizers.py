"""Optimizers inside somebody else's pytest."""

import pytest

from invariants import SuiteError
from invariants.optimizers import parametrize_optimizers

pytest_plugins = ["pytester"]

FILE = """
    import torch
    from invariants.optimizers import parametrize_optimizers

    class Mine(torch.optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {{"lr": lr}})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.sub_(group["lr"] * {direction})

    @parametrize_optimizers([Mine, (Mine, {{"lr": 0.01}})], require={require})
    def test_mine(check):
        assert check().ran
"""


def outcomes(pytester, *, direction="p.grad", require='["erase_match", "keeps_sum@gradient"]'):
    pytester.makepyfile(FILE.format(direction=direction, require=require))
    return pytester.runpytest("-p", "no:randomly")


def test_one_that_has_what_is_required_passes_a_test_for_each(pytester):
    assert outcomes(pytester).parseoutcomes() == {"passed": 4}


def test_one_that_has_not_fails_with_figure_place_and_advice(pytester):
    result = outcomes(pytester, direction="p.grad.sign()")
    assert result.parseoutcomes() == {"passed": 2, "failed": 2}
    result.stdout.fnmatch_lines(
        [
            "*Mine: keeps_sum@gradient is demanded, and is violated *, step 1, *",
            "*advice: independent states match erase*",
        ]
    )


def test_without_requirements_there_is_a_test_that_it_runs(pytester):
    assert outcomes(pytester, require="[]").parseoutcomes() == {"passed": 2}
    assert outcomes(pytester, require="[]", direction="p.missing").parseoutcomes() == {"failed": 2}


def test_no_optimizers_and_unknown_names_are_refused():
    with pytest.raises(SuiteError, match="would pass by checking nothing"):
        parametrize_optimizers([])
    with pytest.raises(SuiteError, match="Nothing is called 'erase'"):
        parametrize_optimizers([object], require=["erase"])
