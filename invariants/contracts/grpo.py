"""What a GRPO loss takes and shows, and what a setting says of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from invariants.contracts.claims import Claims


@dataclass(frozen=True, eq=False, kw_only=True)
class GRPOBatch:
    """What a loss is handed: B = prompts x group completions, group by group, in the subject's dtype.

    The share of a micro-batch in the optimizer step is 1 / (prompts_per_step x group x max_new_tokens) a token.
    """

    forward: Callable[[], Tensor]
    """Gives the logits (B, P + T, vocab), computed anew from `parameter`; those at i predict token i + 1."""
    parameter: nn.Parameter
    """What is trained, for those who run their backward passes themselves."""
    tokens: Tensor  # (B, P + T): prompts, completions, and `pad_token` after a completion's first `end_token`
    prompt_tokens: int  # P
    rewards: Tensor  # (prompts, group)
    old_log_probs: Tensor | None  # (B, T) under the policy that sampled; None: the present one, so that the ratio is 1
    reference_log_probs: Tensor | None  # (B, T) under the reference policy; None without a KL term
    teacher: Tensor  # (B,) bool: completions that a teacher wrote
    end_token: int
    pad_token: int
    """May be the end token."""
    max_new_tokens: int
    """At least T; the denominator counts these, whatever was sampled."""
    prompts_per_step: int
    """Of the whole optimizer step; a micro-batch has fewer."""


GRPOLoss = Callable[[GRPOBatch], Tensor]
"""batch -> the loss, a scalar that can be differentiated."""


@dataclass(frozen=True, kw_only=True)
class GRPO:
    """A loss together with parts of it; what is None is reported as not applicable. A plain loss will do as well."""

    loss: GRPOLoss
    advantages: Callable[[Tensor], Tensor] | None = None
    """(prompts, group) rewards -> (prompts, group)"""
    k3: Callable[[Tensor, Tensor], Tensor] | None = None
    """log-probs under the policy, and under the reference -> the estimate of their divergence, elementwise"""
    by_source: Callable[[GRPOBatch], Mapping[str, Tensor]] | None = None
    """The gradients of `parameter` that the completions of "student" and of "teacher" give."""

    def __call__(self, batch: GRPOBatch) -> Tensor:
        """The loss."""
        return self.loss(batch)


@dataclass(frozen=True, kw_only=True)
class GRPOSetting:
    """What a loss does, in the vocabulary of the theorems."""

    clip_epsilon: float | None = 0.2
    """The ratio is clipped to 1 - epsilon .. 1 + epsilon. None: the loss is on-policy, and only ever called so."""
    beta: float = 0.0
    """The weight of the K3 term; with 0 no reference log-probs are handed in."""
    claims: Claims = None

    @property
    def label(self) -> str:
        """How reports call this setting."""
        clip = "on-policy" if self.clip_epsilon is None else f"clip {self.clip_epsilon:g}"
        return f"{clip}, beta {self.beta:g}" if self.beta else clip
