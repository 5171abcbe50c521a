"""Optimizers that misbehave: none ends the measurement, and none passes for what was not looked at."""

import functools
import math
import sys

import pytest
import torch
from handmade_optimizers import Descent, SignWithMomentum

from invariants.errors import SuiteError
from invariants.optimizers import Answer, Candidate, check_optimizer, reports, survey
from invariants.optimizers.foreign import raised
from projected_grpo.cli import main
from projected_grpo.cli.router import Routed


class Exits(Descent):
    def step(self, closure=None):
        sys.exit(0)


class Skips(Descent):
    def step(self, closure=None):
        pytest.skip("not today")


class Interrupted(Descent):
    def step(self, closure=None):
        raise KeyboardInterrupt


@pytest.mark.parametrize(("optimizer", "words"), [(Exits, "SystemExit: 0"), (Skips, "Skipped: not today")])
def test_an_exit_and_a_skip_are_failures_of_the_optimizer(optimizer, words):
    report = check_optimizer(optimizer)
    assert not report.ran
    assert words in report.problem
    assert not survey([optimizer], require=["resumes"]).ok


def test_an_optimizer_that_exits_does_not_decide_the_exit_code(tmp_path, monkeypatch, capsys):
    (tmp_path / "exiting.py").write_text(
        "import sys, torch\nclass Exits(torch.optim.SGD):\n    def step(self, closure=None):\n        sys.exit(0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["optimizers", "exiting:Exits", "--require", "erase_match"]) == 1
    assert "SystemExit: 0" in capsys.readouterr().out


def test_an_interruption_by_the_user_is_none_of_the_optimizers_failures():
    with pytest.raises(KeyboardInterrupt):
        check_optimizer(Interrupted)


def test_what_was_not_measured_does_not_hold_and_a_name_that_nothing_has_is_refused():
    report = check_optimizer(Exits)
    assert not report.holds("resumes")
    assert not report.holds("keeps_sum")
    with pytest.raises(SuiteError, match="Nothing is called 'aditive'"):
        report.holds("aditive")


def test_two_optimizers_of_one_name_are_measured_each():
    def made(base):
        class Same(base):
            pass

        return Same

    linear, signs = survey([made(Descent), made(SignWithMomentum)]).reports
    assert (linear.name, signs.name) == ("Same", "Same")
    assert linear.holds("additive")
    assert not signs.holds("additive")


def moved(p):
    p.data.sub_(0.1 * p.grad)


class InBackward(Descent):
    """Steps while the loss is differentiated, as well as in step()."""

    def __init__(self, params):
        params = list(params)
        super().__init__(params)
        if not isinstance(params[0], dict):
            for p in params:
                p.register_post_accumulate_grad_hook(moved)


def test_motion_in_the_backward_pass_is_seen():
    finding = check_optimizer(InBackward).probes["only_steps_move"]
    assert finding.answer is Answer.VIOLATED
    assert finding.note == "the backward pass moves them"


class OtherName(Descent):
    def step(self, fn):
        fn()
        fn()
        return super().step()


class Refuses(Descent):
    def step(self, closure=None):
        if closure is not None:
            raise NotImplementedError("no closures")
        return super().step()


def test_a_closure_is_one_whatever_it_is_called_and_may_be_refused():
    assert check_optimizer(OtherName).probes["evaluates_once"].figure == 2
    refusing = check_optimizer(Refuses)
    assert refusing.probes["evaluates_once"].answer is Answer.NOT_MEASURED
    assert "refuses a closure: NotImplementedError: no closures" in refusing.probes["evaluates_once"].note
    assert "don't route with it" not in refusing.advice


class Chaotic(Descent):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                p.sub_(group["lr"] * torch.sin(1e17 * p.grad))


def test_of_an_optimizer_that_rounding_moves_nothing_is_said_about_a_routed_step():
    found = check_optimizer(Chaotic, router=Routed).spaces["gradient"].router
    assert found.answer is Answer.NOT_MEASURED
    assert "rounding the gradients alone moves it" in found.note


def test_what_moves_less_than_rounding_is_not_said_to_be_linear():
    report = check_optimizer((SignWithMomentum, {"lr": 3e-15}))
    for name in ("additive", "homogeneous", "scale_free", "lr_proportional"):
        assert report.probes[name].answer is Answer.NOT_MEASURED
    assert not report.holds("keeps_sum")


class NeedsGradients(Descent):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


def test_one_that_needs_every_gradient_is_measured_as_far_as_that_goes():
    report = check_optimizer(NeedsGradients)
    assert report.ran
    assert report.holds("additive")
    assert report.probes["none_inert"].note.startswith("raises TypeError")
    assert not report.holds("keeps_sum")
    assert "raises TypeError" in report.spaces["gradient"].guarantees["keeps_sum"].note
    assert "NeedsGradients" in reports.as_text(survey([NeedsGradients, Descent]))


class Slightly(Descent):
    """Off linear by less than float32 can tell after so many steps."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                p.sub_(group["lr"] * p.grad * (1 + 1e-4 * torch.tanh(p.grad)))


def test_float32_does_not_acquit_what_float64_has_seen():
    report = check_optimizer(Slightly)
    assert report.probes["additive"].answer is Answer.VIOLATED
    assert report.variants["float32"]["additive"].answer is Answer.NOT_MEASURED


def test_advice_says_linear_only_of_what_is():
    class Clamped(Descent):
        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for p in (p for p in group["params"] if p.grad is not None):
                    p.sub_(group["lr"] * p.grad.clamp(-20, 20))  # nothing that is routed is as large

    report = check_optimizer(Clamped)
    assert not report.holds("additive")
    assert report.holds("keeps_sum@gradient")
    assert "as it is linear" not in report.advice


class WordlessError(Exception):
    def __str__(self):
        raise ValueError("no words")


def test_an_error_without_words_and_arguments_that_json_has_not(tmp_path):
    assert raised(WordlessError()) == "WordlessError: without a word"

    class Named(Descent):
        def __init__(self, params, cap=math.inf, pair=(1, 2), nothing=None):
            super().__init__(params)

    candidate = Candidate(name="a$\\frac$\ud800", make=Named, kwargs={"cap": math.inf, "pair": (1, 2), "nothing": None})
    found = survey([candidate])
    assert '"cap": "inf"' in reports.rendered(found, [], "json")
    reports.rendered(found, [], "text").encode()
    reports.write(found, [], tmp_path / "map.png")


def test_the_callers_default_dtype_is_left_as_it_was():
    class Sets(Descent):
        def step(self, closure=None):
            torch.set_default_dtype(torch.float64)
            return super().step(closure)

    try:
        check_optimizer(Sets)
        assert torch.get_default_dtype() is torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_partial_is_called_as_what_it_is_of():
    assert check_optimizer(functools.partial(Descent, lr=0.01)).name == "Descent"
    assert check_optimizer(lambda params: Descent(params)).probes["paths_agree"].note == (
        "its constructor takes neither foreach nor fused"
    )
