"""Dr.GRPO: advantages, masks, log-probs and the loss, against the definitions written as loops."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import grpo

B, P, T, VOCAB, END = 6, 3, 4, 7, 0
U = torch.finfo(torch.float64).eps / 2  # unit roundoff
DENOMINATOR = 24.0


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# END is the padding id too: rows end late, in the middle, at once, never, twice, and at the last token.
COMPLETIONS = torch.tensor([[5, 6, 0, 0], [5, 0, 0, 0], [0, 0, 0, 0], [5, 6, 1, 2], [5, 0, 6, 0], [5, 6, 1, 0]])
LENGTHS = [3, 2, 1, 4, 2, 4]
MASK = grpo.completion_mask(COMPLETIONS, END)
ADVANTAGE = torch.tensor([1.0, -1.0, 0.5, -0.5, 2.0, -2.0], dtype=torch.float64)


# Advantages


def not_centred():
    """Rewards that, given to a whole group of six, leave R - mean(R) different from zero."""
    groups = torch.linspace(0.01, 3, 300, dtype=torch.float64)[:, None].repeat(1, 6)
    return groups[(groups - groups.mean(dim=1, keepdim=True)).any(dim=1)]


def test_a_group_of_equal_rewards_has_exactly_zero_advantages():
    groups = not_centred()
    assert len(groups) > 10
    assert not grpo.advantages(groups).any()


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=16), st.floats(-1e6, 1e6))
def test_advantages_sum_to_zero_and_ignore_a_shift(rewards, shift):
    """Each of n + 1 roundings is at most u times the sum of the magnitudes."""
    R = torch.tensor([rewards], dtype=torch.float64)
    within = 4 * R.numel() * U * (R.abs().sum() + R.numel() * abs(shift))
    assert abs(grpo.advantages(R).sum()) <= within
    assert (grpo.advantages(R + shift) - grpo.advantages(R)).abs().max() <= within


def test_advantages_scale_with_the_rewards():
    """They are not divided by the group's standard deviation."""
    R = randn(3, 8)
    assert torch.equal(grpo.advantages(4 * R), 4 * grpo.advantages(R))


def test_advantages_follow_a_permutation_of_their_group():
    R, order = randn(3, 8), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(grpo.advantages(R[:, order]), grpo.advantages(R)[:, order], rtol=0, atol=8 * 8 * U)


def test_groups_do_not_see_each_other():
    R = torch.cat([randn(2, 6), not_centred()[:1]])
    assert torch.equal(grpo.advantages(R), torch.cat([grpo.advantages(group[None]) for group in R]))


# Mask and log-probs


def test_the_mask_ends_with_the_first_end_of_sequence():
    expected = torch.tensor([[1.0] * n + [0.0] * (T - n) for n in LENGTHS], dtype=torch.float64)
    mask = grpo.completion_mask(COMPLETIONS, END)
    assert mask.dtype == torch.float64  # a factor, not a choice
    assert torch.equal(mask, expected)


def test_log_probs_are_those_of_the_tokens_that_follow():
    logits = randn(B, P + T, VOCAB)
    log_probs = grpo.token_log_probs(logits, COMPLETIONS)
    for b in range(B):
        for t in range(T):
            row = logits[b, P + t - 1].tolist()
            expected = row[COMPLETIONS[b, t]] - math.log(sum(math.exp(x) for x in row))
            assert abs(log_probs[b, t] - expected) <= 8 * VOCAB * U * (1 + abs(expected))


def test_only_what_predicts_a_completion_token_has_a_gradient():
    """Prompt positions but the last, the last token and padding: exactly zero. The end of sequence: not."""
    logits = randn(B, P + T, VOCAB).requires_grad_()
    log_prob = grpo.token_log_probs(logits, COMPLETIONS)
    reference = log_prob.detach() + randn(B, T, seed=1)
    loss = grpo.loss(log_prob, log_prob.detach(), ADVANTAGE, MASK, DENOMINATOR, reference_log_prob=reference, beta=0.1)
    (gradient,) = torch.autograd.grad(loss, logits)
    trained = gradient.any(dim=-1)  # (B, P + T)
    for b, length in enumerate(LENGTHS):
        assert trained[b].tolist() == [P - 1 <= i < P - 1 + length for i in range(P + T)]


# KL


@given(st.floats(-30, 3))
def test_k3_is_never_negative(d):
    assert grpo.k3(torch.zeros(1, dtype=torch.float64), torch.tensor([d], dtype=torch.float64)) >= 0


def test_k3_stays_nonnegative_next_to_zero_where_exp_does_not():
    d = torch.logspace(-18, 0, 2000, dtype=torch.float64)
    d = torch.cat([d, -d])
    assert (torch.exp(d) - 1 - d).min() < 0
    assert grpo.k3(torch.zeros_like(d), d).min() >= 0


def test_k3_is_zero_only_where_the_policies_agree():
    p = randn(5)
    assert not grpo.k3(p, p).any()
    assert (grpo.k3(p, p + 1e-6) > 0).all()
    assert (grpo.k3(p, p - 1e-6) > 0).all()


def test_k3_estimates_the_divergence():
    """Its expectation under the policy is KL(policy || reference), summed over the vocabulary instead of sampled."""
    policy, reference = torch.log_softmax(randn(2, VOCAB), dim=-1)
    kl = (policy.exp() * (policy - reference)).sum()
    assert kl > 0.1
    assert abs((policy.exp() * grpo.k3(policy, reference)).sum() - kl) <= 16 * VOCAB * U * reference.abs().max().exp()


# Loss


def naive_loss(log_prob, old, advantage, mask, epsilon, reference, beta):
    total = 0.0
    for b in range(B):
        for t in range(T):
            if not mask[b, t]:
                continue
            ratio, A = math.exp(log_prob[b, t] - old[b, t]), float(advantage[b])
            surrogate = min(ratio * A, min(max(ratio, 1 - epsilon), 1 + epsilon) * A)
            d = float(reference[b, t] - log_prob[b, t])
            total += -surrogate + beta * (math.exp(d) - 1 - d)
    return total / DENOMINATOR


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("epsilon", [0.1, 0.2])
def test_the_loss_is_its_definition(epsilon, beta):
    log_prob, old, reference = (-randn(B, T, seed=seed).abs() for seed in range(3))
    ratio = torch.exp(log_prob - old)
    assert (ratio > 1 + epsilon).any()
    assert (ratio < 1 - epsilon).any()
    loss = grpo.loss(
        log_prob, old, ADVANTAGE, MASK, DENOMINATOR, clip_epsilon=epsilon, reference_log_prob=reference, beta=beta
    )
    expected = naive_loss(log_prob, old, ADVANTAGE, MASK, epsilon, reference, beta)
    largest = (ratio * ADVANTAGE[:, None]).abs().max() + torch.exp(reference - log_prob).max()
    assert abs(loss - expected) <= B * T * 16 * U * largest


def test_the_divergence_is_weighed_by_beta_and_left_out_unless_asked_for():
    log_prob, reference = randn(2, B, T)
    without = grpo.loss(log_prob, log_prob, ADVANTAGE, MASK, DENOMINATOR)
    assert torch.equal(
        grpo.loss(log_prob, log_prob, ADVANTAGE, MASK, DENOMINATOR, reference_log_prob=reference), without
    )


def surrogate_gradient(log_prob, old, advantage):
    log_prob = log_prob.clone().requires_grad_()
    return torch.autograd.grad(grpo.loss(log_prob, old, advantage, MASK, DENOMINATOR), log_prob)[0]


def test_at_ratio_one_the_gradient_is_minus_advantage_times_grad_log_prob():
    log_prob = randn(B, T)
    expected = -ADVANTAGE[:, None] * MASK / DENOMINATOR
    torch.testing.assert_close(surrogate_gradient(log_prob, log_prob, ADVANTAGE), expected, rtol=4 * U, atol=0)


@pytest.mark.parametrize(("log_ratio", "clipped_sign"), [(1.0, 1), (-1.0, -1)])
def test_outside_the_trust_region_only_the_way_back_has_a_gradient(log_ratio, clipped_sign):
    gradient = surrogate_gradient(torch.full((B, T), log_ratio).double(), torch.zeros(B, T).double(), ADVANTAGE)
    clipped = ADVANTAGE.sign() == clipped_sign
    assert not gradient[clipped].any()
    assert torch.equal(gradient[~clipped] != 0, MASK[~clipped] > 0)


def test_equal_rewards_give_exactly_no_policy_gradient():
    advantage = grpo.advantages(not_centred()[:1]).flatten()
    assert not surrogate_gradient(randn(B, T), randn(B, T, seed=1), advantage).any()


def test_the_denominator_is_fixed():
    """Twice the padding changes nothing, and the losses of two halves add up to that of the whole."""
    log_prob, old = randn(2, B, T)
    whole = grpo.loss(log_prob, old, ADVANTAGE, MASK, DENOMINATOR)
    padded = [torch.cat([x, torch.zeros(B, T)], dim=1) for x in (log_prob, old, MASK)]
    assert torch.isclose(grpo.loss(*padded[:2], ADVANTAGE, padded[2], DENOMINATOR), whole, rtol=1e-14, atol=0)
    halves = [
        grpo.loss(log_prob[half], old[half], ADVANTAGE[half], MASK[half], DENOMINATOR)
        for half in (slice(0, 2), slice(2, B))
    ]
    assert torch.isclose(sum(halves), whole, rtol=1e-13, atol=0)
