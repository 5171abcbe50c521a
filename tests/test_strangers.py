"""People who bring one function, or one training loop, get verdicts with about ten lines and no subclassing."""

from functools import partial

import pytest
import torch

import reference
from invariants import SplitSetting, StepSetting, Subject, Verdict, verify
from reference import AdamW, SplitRule, Tape


def test_somebody_who_only_has_a_split(small_tape):
    def my_split(g, V):
        removed = V.T @ torch.relu(V @ g)
        return g - removed, removed

    report = verify(Subject(name="mine", split=my_split), tape=small_tape)
    assert report.ok
    assert report.applicable >= 10
    others = [r for r in report.results if r.invariant.capability != "split"]
    lacking = ("routed_step", "adapter", "grpo", "extraction", "train", "grade", "logs")
    assert {r.worst.reason for r in others} == {f"the subject has no {capability}" for capability in lacking}


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
    assert hidden.worst.reason.startswith("the subject does not show the gradients that its optimizers were fed")


@pytest.mark.long
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


def test_a_limit_that_is_ignored_shows_without_the_gradients(small_tape):
    def unclipped(start, basis, *, intervention, max_norm):
        return my_loop(start, basis, intervention=intervention, max_norm=None)

    (result,) = verify(Subject(name="mine", routed_step=unclipped), tape=small_tape, only=["clip.takes_effect"]).results
    assert result.verdict is Verdict.VIOLATED


def fused(g, V):
    c = torch.relu(V @ g)
    return torch.addmv(g, V.T, c, alpha=-1), V.T @ c


def row_by_row(g, V):
    kept, removed = g.clone(), torch.zeros_like(g)
    for row, c in zip(V, torch.relu(V @ g), strict=True):
        kept -= c * row
        removed += c * row
    return kept, removed


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("my_split", [fused, row_by_row])
def test_a_product_that_is_accumulated_on_top_of_the_gradient_is_right_too(small_tape, my_split, dtype):
    for seed in range(6):
        assert verify(Subject(name="mine", split=my_split, dtype=dtype), tape=small_tape, seed=seed).ok


def test_a_buffer_that_is_handed_out_twice_is_the_only_accusation(small_tape):
    buffers = {}

    def my_split(g, V):
        kept, removed = buffers.setdefault(g.shape, (torch.empty_like(g), torch.empty_like(g)))
        removed.copy_(V.T @ torch.relu(V @ g))
        kept.copy_(g - removed)
        return kept, removed

    report = verify(Subject(name="mine", split=my_split), tape=small_tape)
    assert {r.invariant.id for r in report.results if not r.verdict.green} == {"split.purity"}


def test_modules_too_long_for_any_bound_in_bfloat16_are_left_out_and_not_accused():
    draw = torch.Generator().manual_seed(0)
    tape = Tape(
        gradients={name: torch.randn(4, 300, dtype=torch.float64, generator=draw) for name in ("a", "b")},
        basis={"a": torch.zeros(0, 300, dtype=torch.float64), "b": torch.eye(4, 300, dtype=torch.float64)},
        start={name: torch.zeros(300, dtype=torch.float64) for name in ("a", "b")},
    )
    expected = {"optimizer.nonfinite_gradient": "plain torch optimizers take what they are given"}
    subject = Subject(name="my loop", routed_step=my_loop, dtype=torch.bfloat16)
    assert verify(subject, tape=tape, expected_violations=expected).ok


@pytest.mark.parametrize("clip", ["joint", "separate"])
def test_torch_adds_an_epsilon_to_the_norm_of_the_parts_too(small_tape, clip):
    def loop(start, basis, *, intervention, max_norm):
        deployed = {name: torch.nn.Parameter(p) for name, p in start.items()}
        quarantine = {name: torch.nn.Parameter(torch.zeros_like(p)) for name, p in start.items()}
        optimizer = SGD([*deployed.values(), *quarantine.values()])

        def step(gradients):
            for name, g in gradients.items():
                removed = 2 * basis[name].T @ (basis[name] @ g)
                deployed[name].grad = g if intervention == "none" else g - removed
                quarantine[name].grad = removed if intervention == "route" else None
            both = [[*deployed.values()], [*quarantine.values()]]
            for parameters in [[*both[0], *both[1]]] if clip == "joint" else both:
                if max_norm is not None:
                    torch.nn.utils.clip_grad_norm_(parameters, max_norm)
            optimizer.step()
            return deployed, quarantine

        return step

    setting = StepSetting(
        optimizer="SGD", clip=clip, rule=SplitRule(gate="reverse"), reference=reference.SGD(lr=0.1, momentum=0.9)
    )
    subject = Subject(name="mine", routed_step={setting: loop})
    for seed in range(2):
        (result,) = verify(subject, tape=small_tape, only=["optimizer.matches_reference"], seed=seed).results
        assert result.verdict is Verdict.HOLDS


def test_in_bfloat16_a_loop_that_removes_nothing_is_not_told_that_nothing_leaks(small_tape):
    def idle(start, basis, *, intervention, max_norm):
        nothing = {name: torch.zeros_like(V) for name, V in basis.items()}
        return my_loop(start, nothing, intervention=intervention, max_norm=max_norm)

    subject = Subject(name="idle", routed_step=idle, dtype=torch.bfloat16)
    leaks = ["optimizer.update_leak", "optimizer.displacement_leak"]
    report = verify(subject, tape=small_tape, only=leaks)
    assert all(result.verdict is not Verdict.HOLDS for result in report.results)


def test_a_bad_gradient_of_a_module_without_a_basis_counts_too(small_tape):
    def careless(start, basis, *, intervention, max_norm):
        step = my_loop(start, basis, intervention=intervention, max_norm=max_norm)

        def checked(gradients):
            if not all(g.isfinite().all() for name, g in gradients.items() if len(basis[name])):
                raise ValueError("not finite")
            return step(gradients)

        return checked

    subject = Subject(name="careless", routed_step=careless)
    (result,) = verify(subject, tape=small_tape, only=["optimizer.nonfinite_gradient"]).results
    assert result.verdict is Verdict.VIOLATED
