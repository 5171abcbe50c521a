"""Dr.GRPO: advantage, loss, masking, and the K3 estimate of the KL divergence.

Dr.GRPO (Liu et al. 2025, arXiv:2503.20783, section 3.2) is GRPO (Shao et al. 2024, arXiv:2402.03300)
without its two biases: no division of the advantage by the group's standard deviation, no division of
a completion's loss by its own length. The denominator is a constant of the run.
"""

import torch
from torch import Tensor


def advantages(rewards: Tensor) -> Tensor:
    """A = R - mean(R) within each group, (prompts, group) -> (prompts, group).

    A group of equal rewards gets exact zeros: in floating point R - mean(R) need not be zero.
    """
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)  # (prompts, 1)
    return torch.where(equal, torch.zeros_like(rewards), rewards - rewards.mean(dim=1, keepdim=True))


def completion_mask(completions: Tensor, eos: int) -> Tensor:
    """1 up to and including the first end-of-sequence token, 0 after it; (B, T) -> (B, T).

    By position and not by padding id, since padding often shares its id with the end of sequence.
    """
    ended_before = (completions == eos).long().cumsum(dim=1) - (completions == eos).long() > 0
    return (~ended_before).to(torch.float64)


def token_log_probs(logits: Tensor, completions: Tensor) -> Tensor:
    """log pi(token) of each completion token: logits (B, P + T, vocab), completions (B, T) -> (B, T).

    The logits at position i predict token i + 1, so the completion's T tokens are predicted by the T
    positions that start at the prompt's last one.
    """
    T = completions.shape[1]
    log_probs = torch.log_softmax(logits[:, -T - 1 : -1], dim=-1)  # (B, T, vocab)
    return log_probs.gather(-1, completions[..., None]).squeeze(-1)


def k3(log_prob: Tensor, reference_log_prob: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(pi || reference) per token: exp(d) - 1 - d, d = log ref - log pi.

    expm1 keeps it from turning negative by rounding (Schulman 2020, "Approximating KL divergence").
    """
    d = reference_log_prob - log_prob
    return torch.expm1(d) - d


def loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    denominator: float,
    *,
    clip_epsilon: float = 0.2,
    reference_log_prob: Tensor | None = None,
    beta: float = 0.0,
) -> Tensor:
    """The clipped surrogate, log_prob (B, T), advantage (B,), mask (B, T) -> ().

    denominator = group size x max new tokens x prompts per step, whatever was sampled.
    """
    ratio = torch.exp(log_prob - old_log_prob)  # (B, T)
    A = advantage[:, None]  # (B, 1)
    per_token = -torch.minimum(ratio * A, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * A)
    if reference_log_prob is not None:
        per_token = per_token + beta * k3(log_prob, reference_log_prob)
    return (per_token * mask).sum() / denominator
