"""The specification's Dr.GRPO loss, as the suite hands out batches."""

import torch
from torch import Tensor

from invariants.contracts import GRPO, GRPOBatch, GRPOSetting
from reference import grpo

SETTINGS = (GRPOSetting(), GRPOSetting(clip_epsilon=0.1), GRPOSetting(beta=0.04))


def loss(batch: GRPOBatch, setting: GRPOSetting, rows: Tensor | None = None) -> Tensor:
    """The loss of all completions, or of some rows (B,)."""
    assert setting.clip_epsilon is not None, "every setting above has one"
    completions = batch.tokens[:, batch.prompt_tokens :]
    log_probs = grpo.token_log_probs(batch.forward(), completions)
    mask = grpo.completion_mask(completions, batch.end_token).to(log_probs.dtype)
    return grpo.loss(
        log_probs,
        log_probs.detach() if batch.old_log_probs is None else batch.old_log_probs,
        grpo.advantages(batch.rewards).flatten(),
        mask if rows is None else mask * rows[:, None],
        denominator=batch.prompts_per_step * batch.rewards.shape[1] * batch.max_new_tokens,
        clip_epsilon=setting.clip_epsilon,
        reference_log_prob=batch.reference_log_probs,
        beta=setting.beta,
    )


def with_setting(setting: GRPOSetting) -> GRPO:
    """The loss under one setting, with all parts that it has."""

    def by_source(batch: GRPOBatch) -> dict[str, Tensor]:
        return {
            source: torch.autograd.grad(loss(batch, setting, rows), batch.parameter)[0]
            for source, rows in (("student", ~batch.teacher), ("teacher", batch.teacher))
        }

    return GRPO(
        loss=lambda batch: loss(batch, setting), advantages=grpo.advantages, k3=grpo.k3, by_source=by_source
    )  # fmt: skip


def losses() -> dict[GRPOSetting, GRPO]:
    """Two clips, and a KL term."""
    return {setting: with_setting(setting) for setting in SETTINGS}
