"""Dr.GRPO in plain torch, and what goes wrong with it: each broken one overrides one method."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from invariants.contracts import GRPO, GRPOBatch, GRPOLoss, GRPOSetting
from invariants.museum.subjects import exhibit
from invariants.subject import Subject

EPSILON, BETA = 0.2, 0.04
NAN = "0/0 is NaN, which equals nothing"
PLAIN = GRPOSetting(clip_epsilon=EPSILON)
WITH_KL = GRPOSetting(clip_epsilon=EPSILON, beta=BETA)


class Loss:
    """-min(ratio A, clip(ratio) A) + beta K3 over completion tokens, divided by a constant of the run."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def loss(self, batch: GRPOBatch) -> Tensor:
        return self.of_completions(batch).sum()

    def of_completions(self, batch: GRPOBatch) -> Tensor:  # (B,)
        first, T = self.first(batch), batch.tokens.shape[1] - batch.prompt_tokens
        tokens = batch.tokens[:, first : first + T]  # (B, T)
        log_probs = self.log_probs(batch.forward()[:, first - 1 : first - 1 + T], tokens)
        old = log_probs.detach() if batch.old_log_probs is None else batch.old_log_probs
        A = self.advantages(batch.rewards).reshape(-1, 1)
        per_token = -self.surrogate(torch.exp(log_probs - old), A)
        if batch.reference_log_probs is not None:
            per_token = per_token + self.beta * self.k3(log_probs, batch.reference_log_probs)
        mask = self.mask(tokens, batch)
        return (per_token * mask).sum(dim=1) / self.denominator(batch, mask)

    def first(self, batch: GRPOBatch) -> int:
        """Where the completions begin."""
        return batch.prompt_tokens

    def log_probs(self, logits: Tensor, tokens: Tensor) -> Tensor:
        return torch.log_softmax(logits, dim=-1).gather(-1, tokens[..., None]).squeeze(-1)

    def advantages(self, rewards: Tensor) -> Tensor:
        equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
        return torch.where(equal, 0.0, self.centred(rewards))

    def centred(self, rewards: Tensor) -> Tensor:
        return rewards - rewards.mean(dim=1, keepdim=True)

    def surrogate(self, ratio: Tensor, A: Tensor) -> Tensor:
        return torch.minimum(ratio * A, ratio.clamp(1 - EPSILON, 1 + EPSILON) * A)

    def k3(self, log_probs: Tensor, reference: Tensor) -> Tensor:
        d = reference - log_probs
        return torch.expm1(d) - d

    def mask(self, tokens: Tensor, batch: GRPOBatch) -> Tensor:
        ends = (tokens == batch.end_token).long()
        return ends.cumsum(dim=1) - ends == 0  # no end of sequence before it

    def denominator(self, batch: GRPOBatch, mask: Tensor) -> Tensor | int:
        return batch.prompts_per_step * batch.rewards.shape[1] * batch.max_new_tokens

    def by_source(self, batch: GRPOBatch) -> dict[str, Tensor]:
        gradients = {}
        for source, rows in (("student", ~batch.teacher), ("teacher", batch.teacher)):
            self.clear(batch.parameter)
            torch.autograd.backward((self.of_completions(batch) * rows).sum())
            assert batch.parameter.grad is not None
            gradients[source] = batch.parameter.grad.clone()
        return gradients

    def clear(self, parameter: nn.Parameter) -> None:
        parameter.grad = None


def settings(loss: type[Loss]) -> dict[GRPOSetting, GRPOLoss]:
    """A loss of this class, without and with a KL term."""
    made = {PLAIN: loss(0.0), WITH_KL: loss(BETA)}
    return {
        setting: GRPO(loss=one.loss, advantages=one.advantages, k3=one.k3, by_source=one.by_source)
        for setting, one in made.items()
    }


CORRECT = settings(Loss)


def broken_grpo(
    name: str, *, caught_by: str, bug: int | None = None, also: Mapping[str, str] | None = None
) -> Callable[[type[Loss]], type[Loss]]:
    """Puts a loss on show."""

    def show(broken: type[Loss]) -> type[Loss]:
        exhibit(name, lambda n: Subject(name=n, grpo=settings(broken)), caught_by=caught_by, bug=bug, also=also)
        return broken

    return show


@broken_grpo(
    "baseline of the whole batch",
    caught_by="grpo.advantage",
    also={"grpo.accumulation": "a micro-batch has another mean than the batch"},
)
class BaselineOfTheWholeBatch(Loss):
    def centred(self, rewards: Tensor) -> Tensor:
        return rewards - rewards.mean()


@broken_grpo("baseline without the completion itself", caught_by="grpo.advantage")
class LeaveOneOut(Loss):
    def centred(self, rewards: Tensor) -> Tensor:
        G = rewards.shape[1]
        return super().centred(rewards) * (G / (G - 1))


@broken_grpo("advantage divided by the standard deviation", caught_by="grpo.advantage_scale", bug=22)
class OverStandardDeviation(Loss):
    def centred(self, rewards: Tensor) -> Tensor:
        return super().centred(rewards) / (rewards.std(dim=1, keepdim=True) + 1e-4)


@broken_grpo("no baseline", caught_by="grpo.shift")
class NoBaseline(Loss):
    def centred(self, rewards: Tensor) -> Tensor:
        return rewards


@broken_grpo(
    "first of the group as the baseline",
    caught_by="grpo.permutation",
    also={"grpo.end_token": "the first completion has an advantage of zero, and its end no gradient"},
)
class FirstAsBaseline(Loss):
    def centred(self, rewards: Tensor) -> Tensor:
        return rewards - rewards[:, :1]


@broken_grpo(
    "zero over zero for a group of equal rewards",
    caught_by="grpo.zero_variance",
    bug=24,
    also={
        "grpo.advantage_scale": "the standard deviation takes the scale away",
        "grpo.shift": NAN,
        "grpo.permutation": NAN,
        "grpo.accumulation": NAN,
        "grpo.sources_add": NAN,
        "grpo.padding_tokens": NAN,
    },
)
class ZeroOverZero(Loss):
    def advantages(self, rewards: Tensor) -> Tensor:
        return self.centred(rewards) / rewards.std(dim=1, keepdim=True)


@broken_grpo("rounding of the mean trains a group of equal rewards", caught_by="grpo.zero_variance", bug=24)
class GroupNotSkipped(Loss):
    def advantages(self, rewards: Tensor) -> Tensor:
        return self.centred(rewards)


@broken_grpo("loss divided by the length of the completion", caught_by="grpo.on_policy_gradient", bug=22)
class OverLength(Loss):
    def denominator(self, batch: GRPOBatch, mask: Tensor) -> Tensor | int:
        return batch.prompts_per_step * batch.rewards.shape[1] * mask.sum(dim=1)


@broken_grpo(
    "loss divided by the tokens that were sampled",
    caught_by="grpo.on_policy_gradient",
    also={"grpo.accumulation": "a micro-batch has fewer sampled tokens than the batch"},
)
class OverSampledTokens(Loss):
    def denominator(self, batch: GRPOBatch, mask: Tensor) -> Tensor | int:
        return mask.sum()


@broken_grpo("clipped without the minimum", caught_by="grpo.clipped_surrogate")
class WithoutMinimum(Loss):
    def surrogate(self, ratio: Tensor, A: Tensor) -> Tensor:
        return ratio.clamp(1 - EPSILON, 1 + EPSILON) * A


@broken_grpo("clipped above for negative advantages too", caught_by="grpo.clipped_surrogate")
class ClippedAbove(Loss):
    def surrogate(self, ratio: Tensor, A: Tensor) -> Tensor:
        return ratio.clamp(max=1 + EPSILON) * A


@broken_grpo("exp(d) - 1 in K3", caught_by="grpo.k3")
class K3WithoutExpm1(Loss):
    def k3(self, log_probs: Tensor, reference: Tensor) -> Tensor:
        d = reference - log_probs
        return torch.exp(d) - 1 - d


@broken_grpo("KL measured the other way round", caught_by="grpo.k3")
class K3OtherWayRound(Loss):
    def k3(self, log_probs: Tensor, reference: Tensor) -> Tensor:
        return super().k3(reference, log_probs)


@broken_grpo("prompts of the micro-batch counted", caught_by="grpo.accumulation", bug=25)
class PromptsOfTheMicroBatch(Loss):
    def denominator(self, batch: GRPOBatch, mask: Tensor) -> Tensor | int:
        return batch.rewards.numel() * batch.max_new_tokens


@broken_grpo("buffer not cleared between student and teacher", caught_by="grpo.sources_add", bug=21)
class BufferNotCleared(Loss):
    def clear(self, parameter: nn.Parameter) -> None:
        pass


@broken_grpo(
    "completions begin with the last token of the prompt",
    caught_by="grpo.prompt_tokens",
    bug=26,
    also={"grpo.end_token": "as much as they begin too early they end too early"},
)
class LastPromptToken(Loss):
    def first(self, batch: GRPOBatch) -> int:
        return batch.prompt_tokens - 1


@broken_grpo("ends of sequence counted up to one", caught_by="grpo.padding_tokens")
class EndsCounted(Loss):
    def mask(self, tokens: Tensor, batch: GRPOBatch) -> Tensor:  # right only where the padding is an end of sequence
        return (tokens == batch.end_token).long().cumsum(dim=1) <= 1


@broken_grpo("padding masked by its id", caught_by="grpo.end_token", bug=23)
class MaskedById(Loss):
    def mask(self, tokens: Tensor, batch: GRPOBatch) -> Tensor:
        return tokens != batch.pad_token
