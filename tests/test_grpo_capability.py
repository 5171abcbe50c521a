"""The capability `grpo`: strangers with a plain loss, its cases, and the bounds that it is judged by."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from invariants import GRPO, GRPOSetting, Subject, Verdict, verify
from invariants.cases.grpo import groups
from invariants.contracts import StepSetting
from invariants.families.grpo import uncentred
from invariants.surrogate import surrogate
from invariants.trials import GRPOTrial

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def plain_loss(batch):
    """Somebody's loss, with logsumexp in place of log_softmax, advantages from differences, and sums in a loop."""
    P, (prompts, G) = batch.prompt_tokens, batch.rewards.shape
    logits, total = batch.forward()[:, P - 1 : -1], 0.0
    differences = batch.rewards[:, :, None] - batch.rewards[:, None, :]
    A = (differences.sum(dim=2) / G).flatten()
    chosen = logits.gather(-1, batch.tokens[:, P:, None]).squeeze(-1)
    log_probs = chosen - logits.logsumexp(dim=-1)
    old = log_probs.detach() if batch.old_log_probs is None else batch.old_log_probs
    ratio = (log_probs - old).exp()
    for b in range(prompts * G):
        ends = (batch.tokens[b, P:] == batch.end_token).nonzero()
        length = int(ends[0]) + 1 if len(ends) else ratio.shape[1]
        for r in ratio[b, :length]:
            clipped = r.clamp(max=1.2) if A[b] > 0 else r.clamp(min=0.8)
            total = total - clipped * A[b] / (G * batch.prompts_per_step * batch.max_new_tokens)
    return total


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_somebody_who_only_has_a_loss(small_tape, dtype):
    report = verify(Subject(name="mine", grpo=plain_loss, dtype=dtype), tape=small_tape, only=["grpo"])
    assert report.ok
    verdicts = {r.invariant.id: r.verdict for r in report.results}
    hidden = {r.invariant.id: r.worst.reason for r in report.results if r.verdict is Verdict.NOT_APPLICABLE}
    assert {id for id, why in hidden.items() if why.startswith("the subject does not show")} == {
        "grpo.advantage", "grpo.k3", "grpo.sources_add"
    }  # fmt: skip
    exact = {"grpo.prompt_tokens", "grpo.padding_tokens", "grpo.end_token", "grpo.zero_variance"}
    assert {verdicts[id] for id in exact} == {Verdict.HOLDS}


def on_policy(batch):
    """-A log pi, which has no ratio that could be clipped."""
    P = batch.prompt_tokens
    tokens, A = batch.tokens[:, P:], batch.rewards - batch.rewards.mean(dim=1, keepdim=True)
    A = torch.where(batch.rewards.std(dim=1, keepdim=True) < 1e-6, 0.0, A).flatten()
    ends = tokens == batch.end_token
    log_probs = torch.log_softmax(batch.forward()[:, P - 1 : -1], -1).gather(-1, tokens[..., None])[..., 0]
    kept = (ends.cumsum(1) - ends.long() == 0) & (A != 0)[:, None]
    return -(log_probs * A[:, None])[kept].sum() / (
        batch.rewards.shape[1] * batch.prompts_per_step * batch.max_new_tokens
    )  # fmt: skip


def test_a_loss_without_a_ratio(small_tape):
    subject = Subject(name="mine", grpo={GRPOSetting(clip_epsilon=None): on_policy})
    report = verify(subject, tape=small_tape, only=["grpo"])
    assert report.ok
    verdicts = {r.invariant.id: r for r in report.results}
    assert verdicts["grpo.clipped_surrogate"].worst.reason == "the loss is on-policy"
    assert verdicts["grpo.on_policy_gradient"].verdict is Verdict.HOLDS


def test_a_loss_that_learns_nothing_is_not_green(small_tape):
    def idle(batch):
        return 0.0 * batch.forward().sum()

    report = verify(Subject(name="idle", grpo=idle), tape=small_tape, only=["grpo"])
    held = {r.invariant.id for r in report.results if r.verdict is Verdict.HOLDS}
    assert held <= {"grpo.accumulation", "grpo.zero_variance"}
    vacuous = {r.invariant.id for r in report.results if r.verdict is Verdict.VACUOUS}
    assert {"grpo.permutation", "grpo.prompt_tokens", "grpo.padding_tokens"} <= vacuous


@pytest.mark.parametrize(
    ("capability", "sentence"),
    [
        (lambda batch: batch.forward(), "grpo must return the loss as a scalar tensor, not (2, 7, 7)."),
        (lambda batch: 0.5, "grpo must return the loss as a scalar tensor, not float."),
    ],
)
def test_a_loss_that_is_none_is_an_error_in_one_sentence(small_tape, capability, sentence):
    report = verify(Subject(name="mine", grpo=capability), tape=small_tape, only=["grpo.on_policy_gradient"])
    assert report.results[0].worst.reason == f"{sentence} (case: one group of 2)"


@pytest.mark.parametrize(
    ("parts", "id", "sentence"),
    [
        ({"advantages": lambda R: R[:, 0]}, "grpo.advantage", "grpo: advantages must be a tensor (1, 2), not (1,)."),
        ({"k3": lambda p, q: None}, "grpo.k3", "grpo: k3 must be a tensor (1500,), not NoneType."),
        ({"by_source": lambda batch: {}}, "grpo.sources_add", "with the keys 'student' and 'teacher'"),
    ],
)
def test_parts_that_are_none_are_errors(small_tape, parts, id, sentence):
    subject = Subject(name="mine", grpo=GRPO(loss=plain_loss, **parts))
    (result,) = verify(subject, tape=small_tape, only=[id]).results
    assert result.verdict is Verdict.ERROR
    assert sentence in result.worst.reason


def test_labels_say_what_a_loss_does():
    settings = [GRPOSetting(), GRPOSetting(beta=0.04), GRPOSetting(clip_epsilon=None, beta=0.5)]
    assert [s.label for s in settings] == ["clip 0.2", "clip 0.2, beta 0.04", "on-policy, beta 0.5"]
    assert all(s.label != StepSetting().label for s in settings)


# The cases


def test_every_kind_of_completion_and_of_group_occurs():
    cases = {case.label: case for case in groups(0)}
    assert {len(case.rewards) for case in cases.values()} >= {1, 2, 4}
    assert {case.rewards.shape[1] for case in cases.values()} >= {2, 3, 6}
    assert any(bool((case.completions[:, 0] == case.end_token).any()) for case in cases.values())
    never = cases["no end of sequence"]
    assert never.mask.all()
    assert not (never.completions == never.end_token).any()
    assert {case.end_token == case.pad_token for case in cases.values()} == {True, False}
    assert cases["large rewards"].rewards.abs().max() > 1e3
    mixed = cases["a group of equal rewards beside others"].rewards
    assert (mixed == mixed[:, :1]).all(dim=1).tolist() == [False, True, False]
    for case in cases.values():
        assert case.teacher.any()
        assert not case.teacher.all()
        assert not (case.tokens[:, : case.prompt_tokens] == case.end_token).any()
        after = case.completions[~case.mask]
        assert (after == case.pad_token).all()


def test_cases_are_seeded():
    first, second, other = (list(groups(seed)) for seed in (1, 1, 2))
    for a, b, c in zip(first, second, other, strict=True):
        assert torch.equal(a.logits, b.logits)
        assert torch.equal(a.old_log_probs, b.old_log_probs)
        assert not torch.equal(a.logits, c.logits)


@pytest.mark.parametrize("epsilon", [0.1, 0.2, 0.5])
def test_both_sides_of_every_usual_clip_are_reached_and_left(epsilon):
    setting = GRPOSetting(clip_epsilon=epsilon)
    for seed in range(3):
        exact = [surrogate(case, setting, torch.float64, off_policy=True) for case in groups(seed)]
        assert sum(int(each.clipped_above.sum()) for each in exact) > 5
        assert sum(int(each.clipped_below.sum()) for each in exact) > 5
        for case, each in zip(groups(seed), exact, strict=True):
            scored = each.gradient[:, case.prompt_tokens - 1 : -1].any(dim=-1)
            assert not scored[each.clipped_above | each.clipped_below].any()
            assert scored.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_equal_rewards_are_chosen_so_that_their_mean_is_rounded(dtype):
    R = uncentred(6, dtype)[:4, None].repeat(1, 6).to(dtype)
    assert (R - R.mean(dim=1, keepdim=True)).any(dim=1).all()


# The bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("off_policy", [False, True])
def test_the_bound_covers_the_rounding_of_a_loss_and_little_more(dtype, off_policy):
    """A loss in low precision stays within; one that is wrong by twice its size does not, in any case."""
    for case in groups(0):
        trial = GRPOTrial(plain_loss, setting=GRPOSetting(), case=case, dtype=dtype)
        exact = trial.exact_on(trial.given, off_policy=off_policy)
        gradient = trial.gradient_on(trial.given, off_policy=off_policy)
        assert ((gradient - exact.gradient).abs() <= exact.bound).all()
        assert ((3 * gradient - exact.gradient).abs() > exact.bound).any()
        assert torch.equal(exact.bound.any(dim=-1)[:, case.prompt_tokens - 1 : -1], case.mask)


def test_a_micro_batch_is_handed_whole_groups_and_the_prompts_of_the_step():
    *_, case = groups(0)
    handed = []

    def spy(batch):
        handed.append(batch)
        return plain_loss(batch)

    trial = GRPOTrial(spy, setting=GRPOSetting(), case=case, dtype=torch.float64)
    trial.gradient_on(trial.given, micro_batches=2)
    assert [tuple(batch.rewards.shape) for batch in handed] == [(2, 6), (1, 6)]
    assert {batch.prompts_per_step for batch in handed} == {3}
    assert handed[0].parameter is handed[1].parameter
    tokens = torch.cat([batch.tokens for batch in handed])
    assert torch.equal(tokens, case.tokens)
    assert torch.equal(torch.cat([batch.forward() for batch in handed]).detach(), case.logits)


def test_a_subject_that_writes_into_what_it_is_handed_spoils_nothing(small_tape):
    def vandal(batch):
        loss = plain_loss(replace(batch, tokens=batch.tokens.clone()))
        batch.tokens.zero_()
        batch.rewards.zero_()
        batch.teacher.zero_()
        return loss

    assert verify(Subject(name="mine", grpo=vandal), tape=small_tape, only=["grpo"]).ok


def test_a_partial_is_a_callable_too(small_tape):
    assert verify(Subject(name="mine", grpo=partial(plain_loss)), tape=small_tape, only=["grpo.end_token"]).ok
