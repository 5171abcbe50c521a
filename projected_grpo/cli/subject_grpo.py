"""This package's Dr.GRPO loss as a subject of the suite."""

from torch import Tensor

from invariants import GRPO, GRPOBatch, GRPOSetting
from projected_grpo.grpo import (
    advantages,
    completion_losses,
    completion_mask,
    gradients_by_source,
    k3,
    loss_denominator,
    token_log_probs,
)

SETTINGS = (GRPOSetting(), GRPOSetting(clip_epsilon=0.1), GRPOSetting(beta=0.04))


def losses() -> dict[GRPOSetting, GRPO]:
    """Two clips, and a KL term."""
    return {setting: _with_setting(setting) for setting in SETTINGS}


def _with_setting(setting: GRPOSetting) -> GRPO:
    def of_completions(batch: GRPOBatch) -> Tensor:
        completions = batch.tokens[:, batch.prompt_tokens :]
        assert setting.clip_epsilon is not None, "every setting above has one"
        return completion_losses(
            token_log_probs(batch.forward(), completions),
            advantages(batch.rewards).flatten(),
            completion_mask(completions, batch.end_token),
            denominator=loss_denominator(
                prompts_per_step=batch.prompts_per_step,
                group=batch.rewards.shape[1],
                max_new_tokens=batch.max_new_tokens,
            ),
            old_log_probs=batch.old_log_probs,
            clip_epsilon=setting.clip_epsilon,
            reference_log_probs=batch.reference_log_probs,
            beta=setting.beta,
        )

    def loss(batch: GRPOBatch) -> Tensor:
        return of_completions(batch).sum()

    def by_source(batch: GRPOBatch) -> dict[str, Tensor]:
        sources = gradients_by_source(of_completions(batch), batch.teacher, [batch.parameter])
        return {name: gradient for name, (gradient,) in sources.items()}

    return GRPO(loss=loss, advantages=advantages, k3=k3, by_source=by_source)
