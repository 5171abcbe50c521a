"""Dr.GRPO: advantages, which tokens count, their log-probabilities, and the clipped loss with its KL term.

    A = R - mean(R)                                   within each group of completions of one prompt
    ratio = π(token) / π_old(token),    d = log π_ref(token) - log π(token)
    loss = Σ mask · (-min(ratio A, clip(ratio, 1 - ε, 1 + ε) A) + β (eᵈ - 1 - d)) / denominator
    denominator = prompts per step · group · max new tokens

Dr.GRPO (Liu et al. 2025, arXiv:2503.20783, section 3.2) is GRPO (Shao et al. 2024, arXiv:2402.03300) without the
division of the advantage by the group's standard deviation, and of a completion's loss by its length. The denominator
is a constant of the run, so that the losses of micro-batches add up to that of the step, in any partition into prompts.

Prompt and padding get gradients of exactly zero, also where the policy gives padding a probability of zero. So do
groups whose rewards are all equal, up to the KL term.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from projected_grpo.errors import ArgumentTypeError, NonFiniteRewardError, SettingError, ShapeMismatchError
from projected_grpo.norms import working_dtype


def advantages(rewards: Tensor) -> Tensor:
    """A = R - mean(R) within each group, (prompts, group) -> (prompts, group), in the rewards' dtype.

    A group of equal rewards gets exact zeros, where R - mean(R) may round to something else.

    Raises:
        ShapeMismatchError: rewards are no (prompts, group), or a group has no completion.
        ArgumentTypeError: rewards are not floating-point numbers.
        NonFiniteRewardError: one of them is NaN or infinite.

    >>> advantages(torch.tensor([[1.0, 0.0], [0.1, 0.1]]))
    tensor([[ 0.5000, -0.5000],
            [ 0.0000,  0.0000]])
    """
    if rewards.ndim != 2 or rewards.shape[1] == 0:
        raise ShapeMismatchError(f"rewards are {tuple(rewards.shape)}; they must be (prompts, group).")
    if not rewards.is_floating_point():
        raise ArgumentTypeError(f"rewards are {rewards.dtype}; convert them to a floating dtype, as with .float().")
    if bad := int((~rewards.isfinite()).sum()):
        raise NonFiniteRewardError(f"{bad} of {rewards.numel()} rewards are NaN or infinite; mend or drop them.")
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)  # (prompts, 1)
    return torch.where(equal, torch.zeros_like(rewards), rewards - rewards.mean(dim=1, keepdim=True))


def completion_mask(completions: Tensor, end_token: int) -> Tensor:
    """Which tokens count: up to and including the first end of sequence; (B, T) ids -> (B, T) bool.

    By position, since padding often shares its id with the end of sequence.

    Raises ShapeMismatchError if completions are no (B, T), ArgumentTypeError if they are no integers.
    """
    check_tokens(completions)
    ends = completions == end_token
    return ends.cumsum(dim=1) - ends.long() == 0  # none before it


def token_log_probs(logits: Tensor, completions: Tensor) -> Tensor:
    """log π of each completion token: logits (B, P + T, vocab), completions (B, T) -> (B, T).

    The logits at position i predict token i + 1, so T completion tokens are predicted by the T positions that begin
    with the prompt's last. Half-precision logits are normalised, and the result is, in float32.

    Raises:
        ShapeMismatchError: the shapes do not agree, or there is no prompt.
        ArgumentTypeError: logits are not floating-point numbers, or completions no integers.
    """
    check_tokens(completions)
    B, T = completions.shape
    if logits.ndim != 3 or logits.shape[0] != B or logits.shape[1] <= T:
        raise ShapeMismatchError(
            f"logits are {tuple(logits.shape)} for completions {(B, T)}; they must be ({B}, P + {T}, vocab) with a "
            "prompt of P >= 1 tokens, logits of the last token included."
        )
    if not logits.is_floating_point():
        raise ArgumentTypeError(f"logits are {logits.dtype}; they must be floating-point numbers.")
    scored = logits[:, -T - 1 : -1]  # (B, T, vocab)
    log_probs = torch.log_softmax(scored, dim=-1, dtype=working_dtype(logits.dtype))
    return log_probs.gather(-1, completions.long().unsqueeze(-1)).squeeze(-1)


def k3(log_probs: Float[Tensor, "*shape"], reference_log_probs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Schulman's k3 estimate of KL(π || π_ref), elementwise: eᵈ - 1 - d, d = log π_ref - log π.

    expm1 keeps it from turning negative by rounding (Schulman 2020, "Approximating KL divergence").
    """
    d = reference_log_probs - log_probs
    return torch.expm1(d) - d


def loss_denominator(*, prompts_per_step: int, group: int, max_new_tokens: int) -> int:
    """What the summed loss is divided by, whatever was sampled; the prompts are those of the whole optimizer step.

    Raises SettingError for a factor that is not a whole number above 0.
    """
    for name, value in (("prompts_per_step", prompts_per_step), ("group", group), ("max_new_tokens", max_new_tokens)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingError(f"{name} is {value!r}; it must be a whole number above 0.")
    return prompts_per_step * group * max_new_tokens


def completion_losses(
    log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    denominator: int,
    old_log_probs: Tensor | None = None,
    clip_epsilon: float = 0.2,
    reference_log_probs: Tensor | None = None,
    beta: float = 0.0,
) -> Tensor:
    """What each completion adds to the loss of the step, (B,); their sum is the loss.

    Arguments:
        log_probs: (B, T) of the policy that is trained, as `token_log_probs` gives them.
        advantages: (B,), group by group.
        mask: (B, T) bool, as `completion_mask` gives it.
        denominator: as `loss_denominator` gives it.
        old_log_probs: (B, T) of the policy that sampled; None if that is the present one, so that every ratio is 1.
        clip_epsilon: how far a ratio may be from 1 and still be pushed further; between 0 and 1.
        reference_log_probs: (B, T) of the policy that the KL term pulls to; needed for a beta above 0.
        beta: weight of the KL term.

    Raises:
        ShapeMismatchError: the shapes do not agree.
        ArgumentTypeError: the mask is not bool.
        SettingError: a number out of range, or a beta without a reference.
    """
    if log_probs.ndim != 2 or advantages.shape != log_probs.shape[:1]:
        raise ShapeMismatchError(
            f"log_probs are {tuple(log_probs.shape)} and advantages {tuple(advantages.shape)}; they must be (B, T) and "
            "(B,): flatten the advantages of (prompts, group)."
        )
    given = {"mask": mask, "old_log_probs": old_log_probs, "reference_log_probs": reference_log_probs}
    for name, values in given.items():
        if values is not None and values.shape != log_probs.shape:
            shapes = f"{tuple(values.shape)} and log_probs {tuple(log_probs.shape)}"
            raise ShapeMismatchError(f"{name} is {shapes}; both must be (B, T).")
    if mask.dtype != torch.bool:
        raise ArgumentTypeError(f"mask is {mask.dtype}; it must be bool, as completion_mask gives it.")
    if not 0 < clip_epsilon < 1:
        raise SettingError(f"clip_epsilon is {clip_epsilon!r}; it must be between 0 and 1.")
    if not 0 <= beta < float("inf") or not denominator >= 1:
        raise SettingError(f"beta is {beta!r} and denominator {denominator!r}; they must be at least 0 and 1.")
    if beta and reference_log_probs is None:
        raise SettingError(f"beta is {beta!r}, and there are no reference_log_probs to pull to; pass them, or beta=0.")
    old = log_probs.detach() if old_log_probs is None else old_log_probs
    A = advantages.to(log_probs.dtype)[:, None] * mask  # (B, T)
    # Filled in before anything can overflow: 0 times infinity would be NaN, in the gradient too.
    ratio = torch.exp((log_probs - old).masked_fill(A == 0, 0.0))
    per_token = -torch.minimum(ratio * A, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * A)
    if beta and reference_log_probs is not None:
        per_token = per_token + beta * k3(
            log_probs.masked_fill(~mask, 0.0), reference_log_probs.masked_fill(~mask, 0.0)
        )  # zero where both are
    return per_token.sum(dim=1) / denominator


def gradients_by_source(
    losses: Float[Tensor, " completions"], teacher: Tensor, parameters: Sequence[nn.Parameter]
) -> dict[str, tuple[Tensor, ...]]:
    """The gradients that the completions of "student" and of "teacher" give; they add up to that of the loss.

    They are returned, not accumulated: `.grad` is neither read nor written, and no buffer has to be cleared in between.
    The graph is freed.

    Arguments:
        losses: (B,), as `completion_losses` gives them.
        teacher: (B,) bool: which completions the teacher wrote.
        parameters: what to differentiate by; one that the loss does not depend on gets zeros.

    Raises ShapeMismatchError if teacher is not (B,), ArgumentTypeError if it is not bool.
    """
    if teacher.shape != losses.shape:
        raise ShapeMismatchError(f"teacher is {tuple(teacher.shape)} for {len(losses)} completions; it must be (B,).")
    if teacher.dtype != torch.bool:
        raise ArgumentTypeError(f"teacher is {teacher.dtype}; it must be bool.")
    student, taught = (
        torch.autograd.grad(
            losses, parameters, grad_outputs=rows.to(losses.dtype), retain_graph=again, materialize_grads=True
        )
        for rows, again in ((~teacher, True), (teacher, False))
    )
    return {"student": student, "teacher": taught}


def check_tokens(completions: Tensor) -> None:
    """Refuses what is no batch of token ids."""
    if completions.ndim != 2:
        raise ShapeMismatchError(f"completions are {tuple(completions.shape)}; they must be (B, T).")
    if completions.is_floating_point() or completions.dtype == torch.bool:
        raise ArgumentTypeError(f"completions are {completions.dtype}; they must be token ids, as torch.long.")
