"""Groups of completions with rewards, and the logits that a policy gives them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from invariants.cases.draws import numbers
from reference import grpo

P, T, VOCAB, END = 3, 4, 7, 0
LENGTHS = (3, T + 1, 1, 2, T)
"""Of completions, with their end of sequence; T + 1 for one that has none."""


@dataclass(frozen=True, eq=False, kw_only=True)
class GRPOCase:
    """The completions of several prompts, group by group; B = prompts x group."""

    logits: Tensor  # (B, P + T, vocab)
    tokens: Tensor  # (B, P + T)
    prompt_tokens: int  # P
    rewards: Tensor  # (prompts, group)
    old_log_probs: Tensor  # (B, T), both within and beyond every usual clip of the present ones
    reference_log_probs: Tensor  # (B, T)
    teacher: Tensor  # (B,)
    end_token: int
    pad_token: int
    max_new_tokens: int
    label: str

    @property
    def size(self) -> int:
        """How big the case is, to find the smallest that fails."""
        return self.logits.numel()

    @property
    def told(self) -> str:
        """The shapes, and for a tiny case the rewards and the tokens."""
        (prompts, group), (_, T) = self.rewards.shape, self.completions.shape
        plural = "s" if prompts > 1 else ""
        shapes = f"{prompts} prompt{plural} of length {self.prompt_tokens}, {group} completions of length {T}"
        if self.rewards.numel() * T > 8:
            return f"{shapes}: {self.label}"
        return f"{shapes}: rewards={numbers(self.rewards)}, completions={self.completions.tolist()}"

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """All of its numbers."""
        return self.logits, self.rewards, self.old_log_probs, self.reference_log_probs

    def simpler(self) -> Iterator["GRPOCase"]:
        """Cases that are a little simpler: fewer prompts, completions, tokens, words; then rounder numbers."""
        prompts, group = self.rewards.shape
        index = torch.arange(prompts * group).view(prompts, group)
        for few in {prompts // 2, prompts - 1} - {0}:
            yield self._of(index[:few])
            yield self._of(index[-few:])
        for at in range(group if group > 2 else 0):
            yield self._of(torch.cat([index[:, :at], index[:, at + 1 :]], dim=1))
        if self.prompt_tokens > 1:
            yield replace(
                self, logits=self.logits[:, 1:], tokens=self.tokens[:, 1:], prompt_tokens=self.prompt_tokens - 1
            )
        if self.completions.shape[1] > 1:
            shorter = ("logits", "tokens", "old_log_probs", "reference_log_probs")
            yield replace(
                self, max_new_tokens=self.max_new_tokens - 1, **{name: getattr(self, name)[:, :-1] for name in shorter}
            )
        words = 1 + max(int(self.tokens.max()), self.end_token, self.pad_token)
        if words < self.logits.shape[2]:
            yield replace(self, logits=self.logits[..., :words])
        for name in ("logits", "old_log_probs", "reference_log_probs", "rewards"):
            values: Tensor = getattr(self, name)
            for simple in (values.round(), values.sign(), torch.zeros_like(values)):
                changed: dict[str, Any] = {name: simple}
                yield replace(self, **changed)

    def _of(self, kept: Tensor) -> "GRPOCase":
        """With the completions at these places, (prompts, group) again."""
        rows = kept.flatten()
        names = ("logits", "tokens", "old_log_probs", "reference_log_probs", "teacher")
        rewards = self.rewards.flatten()[rows].view(kept.shape)
        return replace(self, rewards=rewards, **{name: getattr(self, name)[rows] for name in names})

    @property
    def completions(self) -> Tensor:
        """The tokens that were sampled, (B, T)."""
        return self.tokens[:, self.prompt_tokens :]

    @property
    def mask(self) -> Tensor:
        """Which of them count: up to and including the end of sequence; (B, T) bool."""
        return grpo.completion_mask(self.completions, self.end_token) > 0

    @property
    def denominator(self) -> int:
        """Prompts x group x max_new_tokens."""
        return self.rewards.numel() * self.max_new_tokens

    def cast(self, dtype: torch.dtype) -> "GRPOCase":
        """As somebody who computes in `dtype` gets it, in float64 again."""
        names = ("logits", "rewards", "old_log_probs", "reference_log_probs")
        return replace(self, **{name: getattr(self, name).to(dtype).double() for name in names})

    def reordered(self, order: Tensor) -> "GRPOCase":
        """With the completions of every group in the order (group,)."""
        prompts, group = self.rewards.shape
        return self._of(torch.arange(prompts)[:, None] * group + order)


def groups(seed: int) -> Iterator[GRPOCase]:
    """Seeded groups of several shapes, with every way for a completion and for its rewards to be special."""
    yield grouped(seed, 1, prompts=1, group=2, label="one group of 2")
    yield grouped(seed, 2, prompts=2, group=3, lengths=(1, 1, 2), label="end of sequence first")
    yield grouped(seed, 3, prompts=2, group=3, lengths=(T + 1,), label="no end of sequence")
    yield grouped(seed, 4, prompts=4, group=6, label="end of sequence is the padding")
    yield grouped(seed, 5, prompts=4, group=6, pad_token=1, label="padding has a token of its own")
    yield grouped(seed, 6, prompts=2, group=4, reward_scale=1e4, label="large rewards")
    case = grouped(seed, 7, prompts=3, group=6, label="a group of equal rewards beside others")
    yield replace(case, rewards=torch.where(torch.arange(3)[:, None] == 1, 0.7, case.rewards))


def grouped(
    seed: int,
    index: int,
    *,
    prompts: int,
    group: int,
    label: str,
    lengths: tuple[int, ...] = LENGTHS,
    pad_token: int = END,
    reward_scale: float = 1.0,
) -> GRPOCase:
    """One case; the lengths go round."""
    draw = torch.Generator().manual_seed(1000 * seed + 900 + index)
    B = prompts * group

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    logits = normal(B, P + T, VOCAB)
    tokens = torch.randint(2, VOCAB, (B, P + T), generator=draw)
    for b in range(B):
        end = P + lengths[b % len(lengths)] - 1
        tokens[b, end : end + 1] = END
        tokens[b, end + 1 :] = pad_token
    log_probs = grpo.token_log_probs(logits, tokens[:, P:])
    # Ratios of about 3.3, 0.95, 0.3 and 1.05, going round: beyond the clip on either side, and within it.
    drifts = torch.tensor([1.2, -0.05, -1.2, 0.05], dtype=torch.float64)
    drift = drifts[(torch.arange(B)[:, None] + torch.arange(T)) % 4] * (1 + normal(B, T).tanh() / 10)
    return GRPOCase(
        logits=logits, tokens=tokens, prompt_tokens=P, rewards=reward_scale * normal(prompts, group),
        old_log_probs=log_probs - drift, reference_log_probs=log_probs + normal(B, T) / 3,
        teacher=torch.arange(B) % 3 == 1, end_token=END, pad_token=pad_token, max_new_tokens=T + 2, label=label,
    )  # fmt: skip
