"""grpo.*, for scripts: recorded gradients on the logits (B, P + T, vocab) beside those of the loss, by autograd.

A = R - mean(R)        loss = -sum min(ratio A, clip(ratio) A) mask / (prompts x group x max_new_tokens) + beta K3
"""

from typing import Any

import torch
from torch import Tensor

from invariants.repro.snippet import IMPOSSIBLE, Residuals, snippet
from invariants.repro.split import OWN_DRAWS

IMPOSSIBLE["grpo.k3"] = OWN_DRAWS
Batch = dict[str, Any]
ROUNDINGS = "gamma of the roundings from the logits to the gradient, times |A| / (prompts x group x max_new_tokens)"


def advantages_of(rewards: Tensor) -> Tensor:
    """R - mean(R) in each group; exact zeros where all are equal."""
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    return torch.where(equal, torch.zeros_like(rewards), rewards - rewards.mean(dim=1, keepdim=True))


def counted(batch: Batch) -> Tensor:
    """Which completion tokens count: up to and including the first end of sequence; (B, T)."""
    ends = (batch["tokens"][:, batch["prompt_tokens"] :] == batch["end_token"]).long()
    mask: Tensor = ends.cumsum(dim=1) - ends == 0
    return mask


def due(batch: Batch, *, off_policy: bool = False) -> Tensor:
    """The gradient of the loss on the logits, float64."""
    logits, completions = batch["logits"].double().requires_grad_(), batch["tokens"][:, batch["prompt_tokens"] :]
    scored = torch.log_softmax(logits[:, batch["prompt_tokens"] - 1 : -1], dim=-1)
    log_probs = scored.gather(-1, completions[..., None]).squeeze(-1)
    old = batch["old_log_probs"].double() if off_policy else log_probs.detach()
    ratio, A = (log_probs - old).exp(), advantages_of(batch["rewards"].double()).flatten()[:, None]
    epsilon = batch["clip_epsilon"] or 0.0
    loss = -torch.minimum(ratio * A, ratio.clamp(1 - epsilon, 1 + epsilon) * A)
    if batch["beta"]:
        d = batch["reference_log_probs"].double() - log_probs
        loss = loss + batch["beta"] * (torch.expm1(d) - d)
    total = (loss * counted(batch)).sum() / (batch["rewards"].numel() * batch["max_new_tokens"])
    gradient: Tensor = torch.autograd.grad(total, logits)[0]
    return gradient


@snippet("grpo.advantage", allows="gamma(group + 1) (|R| + mean |R|)")
def advantage(advantages: list[Tensor], batch: Batch) -> Residuals:
    """The advantage is R - mean(R) over the group."""
    return {"advantages - (R - mean R)": advantages[0] - advantages_of(batch["rewards"].double())}


@snippet("grpo.advantage_scale", allows=f"{ROUNDINGS}, of both gradients")
def advantage_scale(gradients: list[Tensor], batch: Batch) -> Residuals:
    """Rewards four times as large give four times the gradient; rounding the rewards is taken out."""
    scaled = (4 * batch["rewards"].double()).to(batch["rewards"].dtype)
    off = due({**batch, "rewards": scaled}) - 4 * due(batch)
    return {"gradient of 4 R - 4 gradient of R": gradients[0] - 4 * gradients[1] - off}


@snippet("grpo.shift", allows=f"{ROUNDINGS}, of both gradients")
def shift(gradients: list[Tensor], batch: Batch) -> Residuals:
    """The same number added to all rewards changes nothing; rounding the rewards is taken out."""
    R = batch["rewards"].double()
    off = due({**batch, "rewards": (R + R.abs().max()).to(batch["rewards"].dtype)}) - due(batch)
    return {"gradient of R + max |R| - gradient of R": gradients[0] - gradients[1] - off}


@snippet("grpo.permutation", allows=f"{ROUNDINGS}, of both gradients")
def permutation(gradients: list[Tensor], batch: Batch) -> Residuals:
    """A group in another order has its gradients in that order; every group is rolled by one."""
    prompts, group = batch["rewards"].shape
    rows = torch.arange(prompts * group).view(prompts, group).roll(1, dims=1).flatten()
    return {"gradient of the reordered groups - reordered gradient": gradients[0] - gradients[1][rows]}


@snippet("grpo.zero_variance", allows="0")
def zero_variance(gradients: list[Tensor], advantages: list[Tensor], changed: list[Batch], batch: Batch) -> Residuals:
    """A group of equal rewards has no policy gradient, and advantages of zero."""
    rewards = changed[0]["rewards"]
    equal = (rewards == rewards[:, :1]).all(dim=1)
    without = gradients[1] if batch["beta"] else torch.zeros_like(gradients[0])
    rows = equal.repeat_interleave(rewards.shape[1])
    compared = {"gradient of groups of equal rewards": (gradients[0] - without)[rows]}
    if advantages:
        compared["advantages of groups of equal rewards"] = advantages[0][equal]
    return compared


@snippet("grpo.on_policy_gradient", allows=ROUNDINGS)
def on_policy_gradient(gradients: list[Tensor], batch: Batch) -> Residuals:
    """At ratio 1 the gradient is the policy gradient's, and that of beta K3."""
    return {"gradient - due": gradients[0] - due(batch)}


@snippet("grpo.clipped_surrogate", allows=f"{ROUNDINGS}; near the edge of the clip either side is allowed")
def clipped_surrogate(gradients: list[Tensor], batch: Batch) -> Residuals:
    """Off policy the gradient is that of the clipped surrogate."""
    return {"gradient - due": gradients[0] - due(batch, off_policy=True)}


@snippet("grpo.accumulation", allows=f"twice {ROUNDINGS}")
def accumulation(gradients: list[Tensor], batch: Batch) -> Residuals:
    """Micro-batches add up to the whole."""
    return {"sum over micro-batches - gradient of the whole batch": gradients[0] - gradients[1]}


@snippet("grpo.sources_add", allows=f"twice {ROUNDINGS}; where the other source wrote: 0")
def sources_add(gradients: list[Tensor], sources: dict[str, Tensor], batch: Batch) -> Residuals:
    """Each source has the gradient of its own completions, and together they have the whole."""
    by_teacher = batch["teacher"]
    return {
        "student's gradient where the teacher wrote": sources["student"][by_teacher],
        "teacher's gradient where the student wrote": sources["teacher"][~by_teacher],
        "student's + teacher's - whole": sources["student"] + sources["teacher"] - gradients[0],
    }


@snippet("grpo.prompt_tokens", allows="0")
def prompt_tokens(gradients: list[Tensor], batch: Batch) -> Residuals:
    """Logits that predict the prompt have no gradient."""
    return {"gradient that predicts the prompt": gradients[0][:, : batch["prompt_tokens"] - 1]}


@snippet("grpo.padding_tokens", allows="0")
def padding_tokens(gradients: list[Tensor], batch: Batch) -> Residuals:
    """Logits that predict what follows the end of sequence, or nothing, have no gradient."""
    scored = gradients[0][:, batch["prompt_tokens"] - 1 : -1]
    return {"gradient after the end": scored[~counted(batch)], "gradient of the last logits": gradients[0][:, -1]}


@snippet("grpo.end_token", allows="0 ends of sequence without a gradient that is due")
def end_token(gradients: list[Tensor], batch: Batch) -> Residuals:
    """The end of sequence has a gradient where one larger than rounding is due."""
    first = batch["prompt_tokens"]
    ends = (batch["tokens"][:, first:] == batch["end_token"]) & counted(batch)
    large = (due(batch).abs() > 1e-3 * due(batch).abs().max())[:, first - 1 : -1].any(dim=-1)
    missing = ends & large & ~gradients[0][:, first - 1 : -1].any(dim=-1)
    return {"ends of sequence without a gradient": missing.sum()}
