"""People who bring one function, or one training loop, get verdicts with about ten lines and no subclassing."""

from functools import partial

import torch

from invariants import SplitSetting, StepSetting, Subject, Verdict, verify
from reference import AdamW, Tape


def test_somebody_who_only_has_a_split(small_tape):
    def my_split(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed

    report = verify(Subject(name="mine", split=my_split), tape=small_tape)
    assert report.ok
    assert report.applicable >= 10
    others = [r for r in report.results if r.invariant.family != "split"]
    assert {r.worst.reason for r in others} == {"the subject has no routed_step", "the subject has no adapter"}


SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)


def my_loop(start, basis, *, intervention, max_norm, make=SGD):
    """Somebody's loop: an optimizer on two parameter sets, clipped before the split."""
    deployed = {name: torch.nn.Parameter(p) for name, p in start.items()}
    quarantine = {name: torch.nn.Parameter(torch.zeros_like(p)) for name, p in start.items()}
    optimizer = make([*deployed.values(), *quarantine.values()])

    def step(gradients):
        if max_norm is not None:
            norm = float(torch.cat(list(gradients.values())).norm())
            gradients = {name: g * min(1.0, max_norm / (norm + 1e-6)) for name, g in gradients.items()}
        for name, g in gradients.items():
            removed = basis[name].T @ torch.relu(basis[name] @ g)
            deployed[name].grad = g if intervention == "none" else g - removed
            quarantine[name].grad = removed if intervention == "route" else None
        optimizer.step()
        return deployed, quarantine

    return step


def test_somebody_who_only_has_a_loop_with_two_parameter_sets(small_tape):
    subject = Subject(name="my loop", routed_step=my_loop)
    expected = {"optimizer.nonfinite_gradient": "plain torch optimizers take what they are given"}
    report = verify(subject, tape=small_tape, expected_violations=expected)
    assert report.ok
    held = {r.invariant.id for r in report.results if r.verdict is Verdict.HOLDS}
    assert {"optimizer.keeps_sum", "optimizer.erase_match", "optimizer.span", "optimizer.inert_quarantine"} <= held
    hidden = next(r for r in report.results if r.invariant.id == "clip.covers_both")
    assert hidden.worst.reason == "the subject does not show what this check reads"


def test_the_same_loop_with_adamw_does_not_keep_the_sum(small_tape):
    loop = partial(my_loop, make=partial(torch.optim.AdamW, lr=0.03))
    setting = StepSetting(optimizer="AdamW", reference=AdamW(lr=0.03))
    report = verify(Subject(name="my loop", routed_step={setting: loop}), tape=small_tape, only=["optimizer"])
    red = {r.invariant.id for r in report.results if r.verdict is Verdict.VIOLATED}
    assert {"optimizer.keeps_sum", "optimizer.span"} <= red
    assert not red & {"optimizer.erase_match", "optimizer.matches_reference"}


def test_a_split_in_low_precision_is_judged_by_its_own_rounding(small_tape):
    def my_split(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed

    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        subject = Subject(name="mine", split={SplitSetting(subtracts_stored=True): my_split}, dtype=dtype)
        report = verify(subject, tape=small_tape)
        red = {
            r.invariant.id: (str(r.verdict), r.worst.reason, r.worst.measured)
            for r in report.results
            if not r.verdict.green
        }
        assert not red


def test_a_tape_of_one_step_and_one_module_is_enough():
    draw = torch.Generator().manual_seed(0)
    g = torch.randn(1, 6, dtype=torch.float64, generator=draw)
    V = torch.eye(6, dtype=torch.float64)[:2]
    tape = Tape(gradients={"m": g}, basis={"m": V}, start={"m": torch.zeros(6, dtype=torch.float64)})
    expected = {"optimizer.nonfinite_gradient": "plain torch optimizers take what they are given"}
    assert verify(Subject(name="my loop", routed_step=my_loop), tape=tape, expected_violations=expected).ok
