"""The package's Dr.GRPO against the specification's, and where the specification does not tread."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from projected_grpo.errors import (
    ArgumentTypeError,
    NonFiniteRewardError,
    ProjectedGRPOError,
    SettingError,
    ShapeMismatchError,
)
from projected_grpo.grpo import (
    advantages,
    completion_losses,
    completion_mask,
    gradients_by_source,
    k3,
    loss_denominator,
    token_log_probs,
)
from reference import grpo as reference

PROMPTS, GROUP, P, T, VOCAB, END = 2, 3, 3, 4, 7, 0
B = PROMPTS * GROUP
DENOMINATOR = B * T
HALF = [torch.bfloat16, torch.float16]
DTYPES = [torch.float64, torch.float32, *HALF]
# Rows end late, in the middle, at once, never, twice, and at the last token; END is the padding too.
COMPLETIONS = torch.tensor([[5, 6, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0], [5, 6, 1, 2], [5, 0, 6, 0], [5, 6, 1, 0]])
MASK = completion_mask(COMPLETIONS, END)
rewards_of_groups = st.lists(st.lists(st.sampled_from([0.0, 0.1, 1.0, -3.7, 1e4]), min_size=6, max_size=6), min_size=1)


def unit_roundoff(dtype):
    return torch.finfo(dtype).eps / 2


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def both_gradients(seed, *, off_policy, epsilon, beta, dtype=torch.float64):
    """On the logits: the package's in `dtype`, and the specification's in float64 on the same values."""
    logits, rewards = randn(B, P + T, VOCAB, seed=seed, dtype=dtype), randn(PROMPTS, GROUP, seed=seed + 1, dtype=dtype)
    log_probs = reference.token_log_probs(logits.double(), COMPLETIONS)
    old = (log_probs + randn(B, T, seed=seed + 2) / 2).to(dtype) if off_policy else None
    pulled_to = (log_probs + randn(B, T, seed=seed + 3) / 3).to(dtype)
    mine = logits.clone().requires_grad_()
    loss = completion_losses(
        token_log_probs(mine, COMPLETIONS), advantages(rewards).flatten(), MASK, denominator=DENOMINATOR,
        old_log_probs=old, clip_epsilon=epsilon, reference_log_probs=pulled_to, beta=beta,
    ).sum()  # fmt: skip
    theirs = logits.double().requires_grad_()
    log_probs = reference.token_log_probs(theirs, COMPLETIONS)
    expected = reference.loss(
        log_probs, log_probs.detach() if old is None else old.double(),
        reference.advantages(rewards.double()).flatten(), reference.completion_mask(COMPLETIONS, END), DENOMINATOR,
        clip_epsilon=epsilon, reference_log_prob=pulled_to.double(), beta=beta,
    )  # fmt: skip
    return (loss, *torch.autograd.grad(loss, mine)), (expected, *torch.autograd.grad(expected, theirs))


# Against the specification


@given(rewards_of_groups)
def test_advantages_are_the_specifications(rewards):
    for dtype in (torch.float64, torch.float32):
        R = torch.tensor(rewards, dtype=dtype)
        assert torch.equal(advantages(R), reference.advantages(R))
    equal = [len(set(group)) == 1 for group in rewards]
    assert not advantages(R)[torch.tensor(equal)].any()


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1), st.integers(0, 3))
def test_the_mask_is_the_specifications(completions, end):
    tokens = torch.tensor(completions)
    assert torch.equal(completion_mask(tokens, end), reference.completion_mask(tokens, end) > 0)


@given(st.integers(0, 1000), st.booleans(), st.sampled_from([0.1, 0.2]), st.sampled_from([0.0, 0.3]))
def test_loss_and_gradient_are_the_specifications(seed, off_policy, epsilon, beta):
    """The same operations in another order: each entry passes through fewer than 64 roundings."""
    (loss, mine), (expected, theirs) = both_gradients(seed, off_policy=off_policy, epsilon=epsilon, beta=beta)
    u = unit_roundoff(torch.float64)
    largest = float(theirs.abs().max()) + (1 + beta) * math.exp(3) / DENOMINATOR
    assert (mine - theirs).abs().max() <= 64 * u * largest
    assert abs(loss - expected) <= 64 * u * B * T * largest
    assert torch.equal(mine != 0, theirs != 0)


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_dtype(dtype, off_policy):
    """Half-precision logits are scored in float32: only the gradient is rounded to their dtype, and the advantages."""
    (loss, mine), (_, theirs) = both_gradients(3, off_policy=off_policy, epsilon=0.2, beta=0.1, dtype=dtype)
    assert mine.dtype == dtype
    assert loss.dtype == (torch.float32 if dtype in HALF else dtype)
    largest = float(theirs.abs().max()) + math.exp(3) / DENOMINATOR
    assert (mine.double() - theirs).abs().max() <= 64 * unit_roundoff(dtype) * largest


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_precision_log_probs_are_as_good_as_float32(dtype):
    logits = randn(B, P + T, VOCAB, dtype=dtype)
    log_probs = token_log_probs(logits, COMPLETIONS)
    assert log_probs.dtype == torch.float32
    assert torch.equal(log_probs, token_log_probs(logits.float(), COMPLETIONS))


def test_k3_is_the_specifications_and_never_negative():
    d = torch.logspace(-12, 0, 500, dtype=torch.float32)
    zero = torch.zeros_like(d)
    for log_probs, pulled_to in ((-d, zero), (zero, -d), (-d, -d)):
        assert torch.equal(k3(log_probs, pulled_to), reference.k3(log_probs, pulled_to))
        assert k3(log_probs, pulled_to).min() >= 0


# Exact zeros


def test_equal_rewards_give_no_gradient_where_their_mean_is_rounded():
    R = torch.linspace(0.01, 3, 300)[:, None].repeat(1, 6)
    assert (R - R.mean(dim=1, keepdim=True)).any()
    assert not advantages(R).any()


def loss_of(log_probs, advantage, **options):
    return completion_losses(log_probs, advantage, MASK, denominator=DENOMINATOR, **options).sum()


def test_no_advantage_means_no_gradient_even_where_the_ratio_overflows():
    log_probs = torch.zeros(B, T, requires_grad=True)
    old = torch.full((B, T), -1e4)
    (gradient,) = torch.autograd.grad(loss_of(log_probs, torch.zeros(B), old_log_probs=old), log_probs)
    assert not gradient.any()


def test_padding_that_the_policy_gives_no_probability_leaves_the_gradient_finite():
    logits = randn(B, P + T, VOCAB)
    never_padding, gradients = logits.clone(), []
    rows, at = (~MASK).nonzero(as_tuple=True)
    never_padding[rows, P - 1 + at, COMPLETIONS[rows, at]] = -math.inf
    for each in (logits, never_padding):
        each.requires_grad_()
        log_probs = token_log_probs(each, COMPLETIONS)
        fixed = log_probs.detach()
        loss = loss_of(log_probs, randn(B), old_log_probs=fixed + 0.1, beta=0.1, reference_log_probs=fixed)
        gradients.append(torch.autograd.grad(loss, each)[0])
    assert torch.isneginf(token_log_probs(never_padding, COMPLETIONS)[~MASK]).all()
    assert gradients[1].isfinite().all()
    assert torch.equal(*gradients)


def test_only_what_predicts_a_completion_token_has_a_gradient():
    logits = randn(B, P + T, VOCAB).requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(token_log_probs(logits, COMPLETIONS), randn(B)), logits)
    trained = gradient.any(dim=-1)
    assert torch.equal(trained[:, P - 1 : -1], MASK)
    assert not trained[:, : P - 1].any()
    assert not trained[:, -1].any()


# What adds up


def test_micro_batches_by_prompt_add_up_bit_for_bit():
    """Each entry comes from one completion, and the denominator is the step's."""
    logits, rewards = randn(B, P + T, VOCAB).requires_grad_(), randn(PROMPTS, GROUP)
    denominator = loss_denominator(prompts_per_step=PROMPTS, group=GROUP, max_new_tokens=T)

    def gradient(rows, R):
        losses = completion_losses(
            token_log_probs(logits[rows], COMPLETIONS[rows]), advantages(R).flatten(), MASK[rows],
            denominator=denominator,
        )  # fmt: skip
        return torch.autograd.grad(losses.sum(), logits)[0]

    parts = [gradient(slice(i * GROUP, (i + 1) * GROUP), rewards[i : i + 1]) for i in range(PROMPTS)]
    assert torch.equal(sum(parts), gradient(slice(None), rewards))


@pytest.mark.parametrize("teachers", [[], [1, 4], list(range(B))])
def test_sources_add_up_and_leave_no_trace(teachers):
    weight, unused = nn.Parameter(randn(VOCAB, VOCAB)), nn.Parameter(torch.ones(2))
    weight.grad = stale = torch.full_like(weight, 7.0)
    teacher = torch.zeros(B, dtype=torch.bool)
    teacher[teachers] = True

    def losses():
        log_probs = token_log_probs(randn(B, P + T, VOCAB) @ weight, COMPLETIONS)
        return completion_losses(log_probs, randn(B), MASK, denominator=DENOMINATOR)

    sources = gradients_by_source(losses(), teacher, [weight, unused])
    (full,) = torch.autograd.grad(losses().sum(), weight)
    parts = {name: gradient for name, (gradient, _) in sources.items()}
    within = 8 * B * T * P * unit_roundoff(torch.float64) * (parts["student"].abs() + parts["teacher"].abs()).max()
    assert (parts["student"] + parts["teacher"] - full).abs().max() <= within
    for name, rows in (("student", ~teacher), ("teacher", teacher)):
        (expected,) = torch.autograd.grad(losses()[rows].sum(), weight)
        assert (parts[name] - expected).abs().max() <= within
        assert bool(parts[name].any()) == bool(rows.any())
        assert not sources[name][1].any()
    assert weight.grad is stale
    assert (stale == 7.0).all()
    assert unused.grad is None


# Refusals


def refusals():
    ids, zeros = COMPLETIONS, torch.zeros(B)
    good = {"log_probs": torch.zeros(B, T), "advantages": zeros, "mask": MASK, "denominator": 9}

    def losses(**changed):
        return lambda: completion_losses(**{**good, **changed})

    def denominator(**changed):
        return lambda: loss_denominator(**{"prompts_per_step": 2, "group": 3, "max_new_tokens": 4, **changed})

    return [
        (lambda: advantages(torch.zeros(4)), ShapeMismatchError, "rewards are (4,); they must be (prompts, group)."),
        (lambda: advantages(torch.zeros(4, 0)), ShapeMismatchError, "rewards are (4, 0)"),
        (lambda: advantages(torch.ones(2, 2).long()), ArgumentTypeError, "rewards are torch.int64"),
        (lambda: advantages(torch.tensor([[0.0, math.nan]])), NonFiniteRewardError, "1 of 2 rewards are NaN"),
        (lambda: completion_mask(ids[0], END), ShapeMismatchError, "completions are (4,); they must be (B, T)."),
        (lambda: completion_mask(ids.float(), END), ArgumentTypeError, "completions are torch.float32"),
        (lambda: completion_mask(ids > 1, END), ArgumentTypeError, "completions are torch.bool"),
        (lambda: token_log_probs(torch.zeros(B, T, VOCAB), ids), ShapeMismatchError, "with a prompt of P >= 1 tokens"),
        (lambda: token_log_probs(torch.zeros(2, 9, VOCAB), ids), ShapeMismatchError, "they must be (6, P + 4, vocab)"),
        (lambda: token_log_probs(torch.zeros(B, 9), ids), ShapeMismatchError, "logits are (6, 9)"),
        (lambda: token_log_probs(torch.zeros(B, 9, 2).long(), ids), ArgumentTypeError, "logits are torch.int64"),
        (losses(advantages=torch.zeros(PROMPTS, GROUP)), ShapeMismatchError, "flatten the advantages"),
        (losses(log_probs=torch.zeros(B)), ShapeMismatchError, "log_probs are (6,)"),
        (losses(mask=MASK[:, 1:]), ShapeMismatchError, "mask is (6, 3) and log_probs (6, 4); both must be (B, T)."),
        (losses(old_log_probs=torch.zeros(1, T)), ShapeMismatchError, "old_log_probs is (1, 4)"),
        (losses(mask=MASK.float()), ArgumentTypeError, "mask is torch.float32; it must be bool"),
        (losses(clip_epsilon=0.0), SettingError, "clip_epsilon is 0.0; it must be between 0 and 1."),
        (losses(clip_epsilon=math.nan), SettingError, "clip_epsilon is nan"),
        (losses(beta=-1.0), SettingError, "beta is -1.0"),
        (losses(beta=math.nan), SettingError, "beta is nan"),
        (losses(denominator=0), SettingError, "denominator 0"),
        (losses(beta=0.1), SettingError, "no reference_log_probs to pull to"),
        (denominator(prompts_per_step=0), SettingError, "prompts_per_step is 0; it must be a whole number above 0."),
        (denominator(group=True), SettingError, "group is True"),
        (lambda: gradients_by_source(zeros, MASK, []), ShapeMismatchError, "teacher is (6, 4)"),
        (lambda: gradients_by_source(zeros, zeros, []), ArgumentTypeError, "teacher is torch.float32"),
    ]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), refusals(), ids=[each[2] for each in refusals()])
def test_bad_input_is_refused_in_one_sentence(call, error, sentence):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, ProjectedGRPOError)
    assert sentence in str(caught.value)
    assert str(caught.value).count(". ") == 0
