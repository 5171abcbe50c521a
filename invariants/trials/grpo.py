"""A GRPO loss on the completions of one case."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from invariants.cases.grpo import GRPOCase
from invariants.contracts.grpo import GRPO, GRPOBatch, GRPOLoss, GRPOSetting
from invariants.errors import SubjectContractError
from invariants.surrogate import Surrogate, surrogate


@dataclass(frozen=True)
class GRPOTrial:
    """A loss on one case. The parameter that it trains is the logits, so that every position shows its gradient."""

    function: GRPOLoss | GRPO
    _: KW_ONLY
    setting: GRPOSetting
    case: GRPOCase
    dtype: torch.dtype
    _exact: dict[tuple[int, bool], tuple[GRPOCase, Surrogate]] = field(default_factory=dict, init=False)

    @cached_property
    def given(self) -> GRPOCase:
        """The case as the subject gets it."""
        return self.case.cast(self.dtype)

    @property
    def judgeable(self) -> bool:
        """Whether the sum of a group's rewards stays in the range of the subject's dtype, with room to spare."""
        return bool(self.case.rewards.abs().sum() < torch.finfo(self.dtype).max / 64)

    @cached_property
    def shown(self) -> GRPO:
        """The loss, and what else the subject shows."""
        return self.function if isinstance(self.function, GRPO) else GRPO(loss=self.function)

    @cached_property
    def gradient(self) -> Tensor:
        """The gradient of the loss on the case, on policy: on the logits, (B, P + T, vocab) float64."""
        return self.gradient_on(self.given)

    @property
    def exact(self) -> Surrogate:
        """The same by the specification."""
        return self.exact_on(self.given)

    def exact_on(self, case: GRPOCase, *, off_policy: bool = False) -> Surrogate:
        """What the specification says of another case; remembered, as is the case, whose id would be used again."""
        key = (id(case), off_policy)
        if key not in self._exact:
            self._exact[key] = case, surrogate(case, self.setting, self.dtype, off_policy=off_policy)
        return self._exact[key][1]

    def gradient_on(self, case: GRPOCase, *, off_policy: bool = False, micro_batches: int = 1) -> Tensor:
        """The gradient on another case, accumulated over micro-batches of whole groups; (B, P + T, vocab) float64."""
        parameter = nn.Parameter(case.logits.to(self.dtype).clone())
        prompts, group = case.rewards.shape
        for part in torch.arange(prompts).tensor_split(micro_batches):
            rows = (part[:, None] * group + torch.arange(group)).flatten()
            loss = self.shown.loss(self.batch(case, parameter, rows, off_policy=off_policy))
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                what = f"{tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
                raise SubjectContractError(f"grpo must return the loss as a scalar tensor, not {what}.")
            if loss.requires_grad:  # what skips every completion may well be a constant
                torch.autograd.backward(loss.squeeze())
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        return copied("the gradient", gradient, like=parameter)

    def batch(
        self, case: GRPOCase, parameter: nn.Parameter, rows: Tensor | None = None, *, off_policy: bool = False
    ) -> GRPOBatch:
        """What the subject is handed: copies of some rows of the case, whole groups, or of all of them."""
        prompts, group = case.rewards.shape
        rows = torch.arange(prompts * group) if rows is None else rows

        def handed(values: Tensor) -> Tensor:
            return values[rows].to(self.dtype)  # an index copies, so that nobody writes into the case

        return GRPOBatch(
            forward=lambda: parameter[rows].clone(),
            parameter=parameter,
            tokens=case.tokens[rows],
            prompt_tokens=case.prompt_tokens,
            rewards=handed(case.rewards.flatten()).view(-1, group),
            old_log_probs=handed(case.old_log_probs) if off_policy else None,
            reference_log_probs=handed(case.reference_log_probs) if self.setting.beta else None,
            teacher=case.teacher[rows],
            end_token=case.end_token,
            pad_token=case.pad_token,
            max_new_tokens=case.max_new_tokens,
            prompts_per_step=prompts,
        )

    def by_source(self) -> Mapping[str, Tensor] | None:
        """The gradients of the student's and of the teacher's completions, float64; None if they are not shown."""
        if self.shown.by_source is None:
            return None
        parameter = nn.Parameter(self.given.logits.to(self.dtype).clone())
        sources = self.shown.by_source(self.batch(self.given, parameter))
        if not isinstance(sources, Mapping) or set(sources) != {"student", "teacher"}:
            raise SubjectContractError("by_source must return a mapping with the keys 'student' and 'teacher'.")
        return {name: copied(f"by_source, {name}", gradient, like=parameter) for name, gradient in sources.items()}

    def advantages(self, rewards: Tensor) -> Tensor | None:
        """The subject's advantages of (prompts, group) rewards, float64; None if they are not shown."""
        if self.shown.advantages is None:
            return None
        return copied("advantages", self.shown.advantages(rewards.to(self.dtype).clone()), like=rewards)

    def k3(self, log_probs: Tensor, reference: Tensor) -> Tensor | None:
        """The subject's estimate of the divergence, float64; None if it is not shown."""
        if self.shown.k3 is None:
            return None
        return copied("k3", self.shown.k3(log_probs.to(self.dtype), reference.to(self.dtype)), like=log_probs)


def copied(what: str, returned: Tensor, *, like: Tensor) -> Tensor:
    """What a subject returned, in float64, if it has the shape that is due."""
    if not isinstance(returned, Tensor) or returned.shape != like.shape:
        shown = f"{tuple(returned.shape)}" if isinstance(returned, Tensor) else type(returned).__name__
        raise SubjectContractError(f"grpo: {what} must be a tensor {tuple(like.shape)}, not {shown}.")
    return returned.detach().double().clone()
