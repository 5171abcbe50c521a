"""grpo.*: advantages, the clipped surrogate and its KL term, measured on the gradient that the loss gives the logits.

A = R - mean(R)        loss = -sum min(ratio A, clip(ratio) A) mask / (prompts x group x max_new_tokens)
"""

from dataclasses import replace

import torch
from torch import Tensor

from invariants.bounds import gamma
from invariants.cases.draws import numbers
from invariants.contracts.grpo import GRPOSetting
from invariants.measurement import Measurement, elementwise, same_bits, worst
from invariants.on_logits import on_logits
from invariants.registry import invariant
from invariants.surrogate import advantage_error
from invariants.trials import GRPOTrial
from reference import grpo


def without_kl(setting: GRPOSetting) -> str | None:
    """What the rewards do to the gradient can be seen in it only if they are all that it is made of."""
    return f"with beta {setting.beta:g} a KL term that sees no rewards is added" if setting.beta else None


def has_a_clip(setting: GRPOSetting) -> str | None:
    """There must be a ratio that can be clipped."""
    return "the loss is on-policy" if setting.clip_epsilon is None else None


@invariant(
    "grpo.advantage",
    theorem="T16",
    capability="grpo",
    events=("rewards of a group differ",),
    reads="its advantages",
)
def advantage(trial: GRPOTrial) -> Measurement | None:
    """The advantage is A = R - mean(R) over the group, so that a group's advantages sum to zero.

    Fails when: a completion is judged against something other than the mean of its own group.

    Likely cause: the mean goes over the whole batch, leaves the completion itself out, or is a running one.
    """
    R = trial.given.rewards
    shown = trial.advantages(R)
    if shown is None:
        return None
    exact = grpo.advantages(R)
    bound = advantage_error(R, trial.dtype) + advantage_error(R, torch.float64)
    differ = {"rewards of a group differ": bool(exact.any())}
    return elementwise(shown - exact, bound, trial.case.label, scale=exact, occurred=differ)


def rescored(trial: GRPOTrial, rewards: Tensor, factor: float) -> Measurement:
    """Whether the gradient under other rewards is `factor` times what it was."""
    case = replace(trial.given, rewards=rewards.to(trial.dtype).double())
    # Both are compared with what they should be: rounding the new rewards is the suite's doing.
    due = trial.exact_on(case).gradient - factor * trial.exact.gradient
    bound = trial.exact_on(case).bound + abs(factor) * trial.exact.bound
    return where_due(trial, trial.gradient_on(case) - factor * trial.gradient - due, bound, factor)


def where_due(trial: GRPOTrial, residual: Tensor, bound: Tensor, factor: float = 1.0) -> Measurement:
    """Compares where completions have a gradient; that nothing else has one is for grpo_tokens to say."""
    seen = {"gradient is not zero": bool(trial.gradient.any())}
    return on_logits(trial, torch.where(bound > 0, residual, 0.0), bound, factor=factor, occurred=seen)


@invariant(
    "grpo.advantage_scale", theorem="T16", capability="grpo", applies=without_kl, events=("gradient is not zero",)
)
def advantage_scale(trial: GRPOTrial) -> Measurement:
    """Rewards four times as large give four times the gradient.

    Fails when: a group in which next to nothing differs weighs as much as one in which everything does.

    Likely cause: the advantage is divided by the standard deviation of the group, as in GRPO before Dr.GRPO.
    """
    return rescored(trial, 4 * trial.given.rewards, 4.0)


@invariant("grpo.shift", theorem="T16", capability="grpo", applies=without_kl, events=("gradient is not zero",))
def shift(trial: GRPOTrial) -> Measurement:
    """Adding the same number to all rewards changes nothing.

    Fails when: a bonus that everybody gets makes everything that was sampled more likely.

    Likely cause: no baseline is subtracted, or one that does not follow the rewards.
    """
    R = trial.given.rewards
    return rescored(trial, R + R.abs().max(), 1.0)


@invariant("grpo.permutation", theorem="T16", capability="grpo", events=("gradient is not zero",))
def permutation(trial: GRPOTrial) -> Measurement:
    """Reordering a group reorders the gradients, and changes nothing else.

    Fails when: what a completion teaches depends on its place in the group.

    Likely cause: one place serves as the baseline, or rewards and completions are matched in another order.
    """
    group = trial.given.rewards.shape[1]
    order = torch.arange(group).roll(1)
    case = trial.given.reordered(order)
    rows = torch.arange(len(trial.given.tokens)).view(-1, group)[:, order].flatten()
    bound = trial.exact_on(case).bound + trial.exact.bound[rows]
    return where_due(trial, trial.gradient_on(case) - trial.gradient[rows], bound)


def uncentred(group: int, dtype: torch.dtype) -> Tensor:
    """Rewards which, given to a whole group, leave R - mean(R) different from zero in `dtype`; then others."""
    values = torch.linspace(0.01, 3, 300, dtype=torch.float64).to(dtype)
    groups = values[:, None].repeat(1, group)
    left_over = (groups - groups.mean(dim=1, keepdim=True)).any(dim=1)
    return torch.cat([values[left_over], values[~left_over]]).double()


@invariant("grpo.zero_variance", theorem="T16", capability="grpo", events=("rewards of a group are equal",))
def zero_variance(trial: GRPOTrial) -> Measurement:
    """A group of equal rewards gives exactly no policy gradient, also where R - mean(R) rounds to something else.

    Beside a KL term: exactly the gradient that rewards of zero give.

    Fails when: such a group gives NaN, or pushes at the size of rounding errors.

    Likely cause: a division by its standard deviation, or no explicit test of equality.
    """
    rewards = trial.given.rewards.clone()
    rewards[::2] = uncentred(rewards.shape[1], trial.dtype)[: len(rewards[::2]), None]
    case = replace(trial.given, rewards=rewards)
    equal = (rewards == rewards[:, :1]).all(dim=1)  # (prompts,)
    rows = equal.repeat_interleave(rewards.shape[1])
    gradient = trial.gradient_on(case)
    due = torch.zeros_like(gradient)
    if trial.setting.beta:
        due = trial.gradient_on(replace(trial.given, rewards=torch.where(equal[:, None], 0.0, rewards)))
    residual = torch.where(rows[:, None, None], gradient - due, 0.0)
    measured = [on_logits(trial, residual, torch.zeros_like(residual))]
    if (shown := trial.advantages(rewards)) is not None:
        measured.append(same_bits(shown[equal], torch.zeros_like(shown[equal]), f"{trial.case.label}, advantages"))
    fed = f"with the rewards {numbers(rewards)} instead" if rewards.numel() <= 8 else "every other group made equal"
    return replace(worst(measured, occurred={"rewards of a group are equal": int(equal.sum())}), fed=fed)


@invariant("grpo.on_policy_gradient", theorem="T16", capability="grpo", events=("gradient is not zero",))
def on_policy_gradient(trial: GRPOTrial) -> Measurement:
    """At ratio 1 the gradient is -A grad log pi / (prompts x group x max_new_tokens), and that of beta K3.

    Fails when: the step is another one than that of the policy gradient.

    Likely cause: an advantage over a standard deviation, or a sum over a length, or over what was sampled.
    """
    return on_logits(
        trial, trial.gradient - trial.exact.gradient, trial.exact.bound,
        occurred={"gradient is not zero": bool(trial.exact.gradient.any())},
    )  # fmt: skip


@invariant(
    "grpo.clipped_surrogate",
    theorem="T16",
    capability="grpo",
    applies=has_a_clip,
    events=("clipped above", "clipped below"),
)
def clipped_surrogate(trial: GRPOTrial) -> Measurement:
    """Off policy the gradient is that of min(ratio A, clip(ratio, 1 - epsilon, 1 + epsilon) A).

    Fails when: a token that has moved too far is pushed further, or is not let back.

    Likely cause: the minimum with the unclipped term is missing, or a clip on the wrong side of a negative advantage.
    """
    exact = trial.exact_on(trial.given, off_policy=True)
    seen = {"clipped above": int(exact.clipped_above.sum()), "clipped below": int(exact.clipped_below.sum())}
    gradient = trial.gradient_on(trial.given, off_policy=True)
    return on_logits(trial, gradient - exact.gradient, exact.bound, occurred=seen)


@invariant(
    "grpo.k3", theorem="T16", capability="grpo", events=("log-probs differ",), reads="its KL estimate", per="setting"
)
def k3(trial: GRPOTrial) -> Measurement | None:
    """K3 = exp(d) - 1 - d, d = log ref - log pi, is never negative, and zero where the log-probs agree.

    With d, expm1 and the difference rounded: gamma(8) (|expm1(d)| + (1 + exp(d)) |d|).

    Fails when: a divergence is negative, so that the policy is paid for a rounding error.

    Likely cause: exp(d) - 1 instead of expm1(d).
    """
    sizes = torch.logspace(-18, 0, 500, dtype=torch.float64)
    zero = torch.zeros_like(sizes)
    log_probs, reference = torch.cat([-sizes, zero, -sizes]), torch.cat([zero, -sizes, -sizes])
    log_probs, reference = (t.to(trial.dtype).double() for t in (log_probs, reference))
    shown = trial.k3(log_probs, reference)
    if shown is None:
        return None
    d = reference - log_probs
    exact = grpo.k3(log_probs, reference)
    size = torch.expm1(d).abs() + (1 + d.exp()) * d.abs()
    bound = (gamma(8, trial.dtype) + gamma(8, torch.float64)) * size
    where = "log-probs from 1e-18 to 1 apart"
    measured = [
        elementwise(shown.clamp(max=0), 0.0, f"{where}, below zero"),
        elementwise(shown[d == 0], 0.0, f"{where}, equal ones"),
        elementwise(shown - exact, bound, where, scale=exact),
    ]
    return worst(measured, occurred={"log-probs differ": int((d != 0).sum())})
