"""The gradient of a step, in one backward pass per micro-batch, with what each source of rollouts gave to it.

A step without a teacher has one source, so that no gradient of a single row is asked for; with whole weights, where
they are not of a half type, it costs little more than the base model's.

The losses of micro-batches add up to the step's, since the denominator is a constant of the run. A completion whose
advantage is zero adds nothing but its KL term, so without one it is not run at all. A policy that begins to hack says
the same again and again: the loss of equal completions of one prompt is linear in their advantages, so they are run
once, with the mean advantage and as often as they stand there as their weight. Shorter ones stand beside shorter ones,
so that little padding is run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from projected_grpo.adapter import row_gradients
from projected_grpo.diagnostics import hackward_share
from projected_grpo.grpo import completion_losses, k3, loss_denominator
from projected_grpo.norms import global_norm
from projected_grpo.split import GroupedSplit
from projected_grpo.training.config import GRPOConfig
from projected_grpo.training.policy import Policy
from projected_grpo.training.rollouts import Rollouts

Gradient = dict[str, Tensor]  # module → (r,)


@dataclass(frozen=True)
class Learned:
    """What the backward passes of a step leave, besides the accumulated gradients."""

    loss: float
    kl: float  # mean over tokens of the k3 estimate; 0 without a KL term
    student: Gradient
    teacher: Gradient  # empty where there was none

    @property
    def agreement(self) -> float | None:
        """Cosine of the student's and the teacher's gradients; None where one of them is zero."""
        if not self.teacher:
            return None
        product = torch.stack([(self.student[n].double() @ self.teacher[n].double()) for n in self.teacher]).sum()
        length = global_norm(self.student.values()) * global_norm(self.teacher.values())
        return float(product / length) if float(length) > 0 else None

    def hackward(self, split: GroupedSplit) -> tuple[float, float | None]:
        """Share of each source's gradient that is hack-ward: the student's, the teacher's."""
        student = float(hackward_share(split.project(self.student)))
        return student, float(hackward_share(split.project(self.teacher))) if self.teacher else None


def accumulate(policy: Policy, rollouts: Rollouts, config: GRPOConfig) -> Learned:
    """Puts the step's gradient into `.grad` of the deployed vectors, which are cleared first."""
    pairs = policy.vectors
    for pair in pairs.values():
        for vector in pair:
            if vector is not None:
                vector.grad = None
    different = _different(rollouts, config)
    sources = (False, True) if rollouts.teacher.any() else ()  # a single one has all of the gradient
    sums = {source: {name: torch.zeros_like(pair.deployed) for name, pair in pairs.items()} for source in sources}
    loss, kl, tokens = 0.0, 0.0, 0.0
    policy.model.train(policy.recomputes)
    for at in range(0, len(different.rows), config.micro_batch):
        part = _one_pass(policy, rollouts, different.slice(at, config.micro_batch), config, sums)
        loss, kl, tokens = loss + part[0], kl + part[1], tokens + part[2]
    policy.model.eval()
    for pair in pairs.values():
        if pair.deployed.grad is None:  # nothing to learn is a gradient of zero, by which momenta still move
            pair.deployed.grad = torch.zeros_like(pair.deployed)
    total = {name: g.clone() for name, pair in pairs.items() if (g := pair.deployed.grad) is not None}
    return Learned(loss, kl / tokens if tokens else 0.0, sums.get(False, total), sums.get(True, {}))


@dataclass(frozen=True)
class _Different:
    """n completions that stand for all that matter."""

    rows: Int[Tensor, " n"]  # one of each, in the step's rollouts
    weight: Float[Tensor, " n"]  # how often it stands there
    advantage: Float[Tensor, " n"]  # the mean over all of these

    def slice(self, at: int, size: int) -> "_Different":
        """Some of them."""
        part = slice(at, at + size)
        return _Different(self.rows[part], self.weight[part], self.advantage[part])


def _different(rollouts: Rollouts, config: GRPOConfig) -> _Different:
    """The completions that can have a gradient, each once; the shortest first."""
    batch = rollouts.completions
    whole = torch.cat(
        [batch.prompt_ids, batch.prompt_mask, batch.ids, batch.mask, rollouts.teacher[:, None].to(batch.ids.device)],
        dim=1,
    ).cpu()  # fmt: skip
    keys, of = torch.unique(whole, dim=0, return_inverse=True)
    weight = torch.zeros(len(keys)).index_add_(0, of, torch.ones(len(whole)))
    advantage = torch.zeros(len(keys), dtype=torch.float64).index_add_(0, of, rollouts.advantages.double()) / weight
    first = torch.full((len(keys),), len(whole)).scatter_reduce_(0, of, torch.arange(len(whole)), "amin")
    order = torch.argsort(batch.mask.sum(dim=1).cpu()[first], stable=True)
    if not config.kl_beta:
        order = order[advantage[order] != 0]
    return _Different(first[order], weight[order], advantage[order].to(rollouts.advantages.dtype))


def _one_pass(
    policy: Policy, rollouts: Rollouts, chunk: _Different, config: GRPOConfig, sums: Mapping[bool, Gradient]
) -> tuple[float, float, float]:
    """Forward and backward of some completions: their loss, summed KL, and number of tokens."""
    batch = rollouts.completions[chunk.rows.to(policy.device)].trimmed()
    weight = chunk.weight.to(policy.device)
    reference = policy.reference_log_probs(batch, temperature=config.temperature) if config.kl_beta else None
    with row_gradients(policy.model) if sums else policy.materialized() as rows:
        log_probs = policy.log_probs(batch, temperature=config.temperature)
        losses = completion_losses(
            log_probs, chunk.advantage.to(policy.device), batch.mask,
            denominator=loss_denominator(
                prompts_per_step=config.prompts, group=config.group, max_new_tokens=config.max_new_tokens
            ),
            reference_log_probs=reference, beta=config.kl_beta,
        )  # fmt: skip
        total = (weight * losses).sum()
        torch.autograd.backward(total)
        taken = rows.take() if rows is not None else {}
    teacher = rollouts.teacher[chunk.rows].to(policy.device)
    for source, sum_of in sums.items():
        for name, per_row in taken.items():
            sum_of[name] += per_row[teacher == source].sum(dim=0)
    tokens = weight[:, None] * batch.mask
    return float(total.detach()), _kl(log_probs, reference, tokens), float(tokens.sum())


def _kl(log_probs: Float[Tensor, "n T"], reference: Float[Tensor, "n T"] | None, tokens: Float[Tensor, "n T"]) -> float:
    """Of all tokens, each as often as it stands there."""
    if reference is None:
        return 0.0
    counted = tokens > 0
    return float((k3(log_probs.detach()[counted], reference[counted]) * tokens[counted]).sum())


def mean_nll(policy: Policy, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """Mean negative log-likelihood of one completion, with its graph; ()."""
    batch = policy.completed([prompt], [completion])
    return -(policy.log_probs(batch) * batch.mask).sum() / batch.mask.sum()
