"""The gradient of the Dr.GRPO loss on the logits, exact, and how far rounding may move it.

With w the derivative of the loss by a token's log-prob, hit its one-hot vector and p = softmax(logits),

    dloss/dlogits = w (hit - p),    w = (-ratio A [not clipped] + beta (1 - exp(d))) / denominator,

where ratio = exp(log pi - log old) and d = log ref - log pi. Counted in units of the unit roundoff u, with n the size
of the vocabulary, Z = max |logit|, and elementary functions within two units in the last place (four u):

    log pi            n + 3 + 7 (Z + log n): a sum of n exponentials, its logarithm, four subtractions and a cast
    ratio, relative   of log pi, + |log ratio| + 4; exactly 1 on policy, since the old policy is the present one
    exp(d), relative  of log pi, + |d| + 4
    w                 14 more for the products and sums, and autograd's own
    p, relative       of log pi, + 6

A = R - mean(R) is off by at most e = gamma(G + 1) (|R| + mean |R|). Where a ratio is as near to its clip, or A to zero,
as their errors, either side of the clip is allowed.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from invariants.bounds import gamma, underflow, unit_roundoff
from invariants.cases.grpo import GRPOCase
from invariants.contracts.grpo import GRPOSetting
from reference import grpo


class Surrogate(NamedTuple):
    """What the specification says of one case."""

    gradient: Tensor  # (B, P + T, vocab)
    bound: Tensor  # (B, P + T, vocab), how far from it rounding may lead
    clipped_above: Tensor  # (B, T): tokens without a gradient since their ratio is too large
    clipped_below: Tensor  # (B, T)


def surrogate(case: GRPOCase, setting: GRPOSetting, dtype: torch.dtype, *, off_policy: bool) -> Surrogate:
    """The gradient on `case`, for somebody who computes in `dtype`."""
    epsilon = setting.clip_epsilon or 0.0  # on policy nothing is clipped, whatever it is
    logits = case.logits.clone().requires_grad_()
    log_probs = grpo.token_log_probs(logits, case.completions)  # (B, T)
    old = case.old_log_probs if off_policy else log_probs.detach()
    A = grpo.advantages(case.rewards).flatten()  # (B,)
    reference = case.reference_log_probs if setting.beta else None
    loss = grpo.loss(
        log_probs, old, A, case.mask.double(), case.denominator, clip_epsilon=epsilon, reference_log_prob=reference,
        beta=setting.beta,
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, logits)
    ratio = (log_probs - old).detach().exp()
    bound = sum(
        (rounding(case, setting, log_probs.detach(), old, off_policy, each) for each in (dtype, torch.float64)),
        start=torch.zeros_like(gradient),
    )
    above, below = ratio > 1 + epsilon, ratio < 1 - epsilon
    return Surrogate(gradient, bound, above & (A[:, None] > 0) & case.mask, below & (A[:, None] < 0) & case.mask)


def advantage_error(rewards: Tensor, dtype: torch.dtype) -> Tensor:
    """How far R - mean(R) may be off, (prompts, group)."""
    size: Tensor = rewards.abs() + rewards.abs().mean(dim=1, keepdim=True)
    return gamma(rewards.shape[1] + 1, dtype) * size


def rounding(
    case: GRPOCase, setting: GRPOSetting, log_probs: Tensor, old: Tensor, off_policy: bool, dtype: torch.dtype
) -> Tensor:
    """The error of the gradient in `dtype`, (B, P + T, vocab); zero where the gradient is zero by its mask."""
    scored = case.logits[:, case.prompt_tokens - 1 : -1]  # (B, T, vocab)
    n = scored.shape[-1]
    of_log_prob = n + 3 + 7 * (scored.abs().amax(dim=-1) + math.log(n))  # (B, T), as all below
    log_ratio = log_probs - old
    ratio = log_ratio.exp()
    of_ratio = of_log_prob + log_ratio.abs() + 4 if off_policy else torch.zeros_like(ratio)
    magnitude, e = grpo.advantages(case.rewards).abs().view(-1, 1), advantage_error(case.rewards, dtype).view(-1, 1)
    size, of_w = ratio * (magnitude + e), of_ratio + 14
    if setting.beta:
        d = case.reference_log_probs - log_probs
        size, of_w = size + setting.beta * (1 + d.exp()), of_w + of_log_prob + d.abs() + 4
    slack = ratio * e
    if off_policy and setting.clip_epsilon is not None:
        limits = torch.tensor([1 - setting.clip_epsilon, 1 + setting.clip_epsilon], dtype=torch.float64)
        close = (ratio[..., None] - limits).abs() <= (relative(of_ratio, dtype) * ratio)[..., None] + gamma(2, dtype)
        slack = slack + torch.where(close.any(dim=-1) | (magnitude <= e), ratio * magnitude, 0.0)
    hit = torch.nn.functional.one_hot(case.completions, n).double()  # (B, T, vocab), as all below
    p = torch.softmax(scored, dim=-1)
    of_each = relative(of_w, dtype)[..., None] * hit + relative(of_w + of_log_prob + 6, dtype)[..., None] * p
    error = (size[..., None] * of_each + slack[..., None] * (hit + p)) / case.denominator + underflow(8, dtype)
    everywhere = torch.zeros_like(case.logits)
    everywhere[:, case.prompt_tokens - 1 : -1] = torch.where(case.mask[..., None], error, 0.0)
    return everywhere


def relative(roundings: Tensor, dtype: torch.dtype) -> Tensor:
    """gamma of each entry."""
    nu = roundings * unit_roundoff(dtype)
    return torch.where(nu < 1, nu / (1 - nu), math.inf)
