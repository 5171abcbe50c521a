"""Forward and backward passes of an adapted model, in both forms, beside the base model's."""

import torch
from torch import Tensor, nn

from projected_grpo.adapter import materialized, merged
from projected_grpo.bench.models import adapted_model, base_model, embeddings, operations, runnable
from projected_grpo.bench.report import Row, rows_of
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.timing import Job, interleaved

BASE, BOTH = "base model, forward", "base model, forward and backward"


def measure_adapter(setting: Setting) -> list[Row]:
    """Forward alone, and forward and backward to the vectors and to the input embeddings; the base model's to those."""
    base, model, whole = base_model(setting), adapted_model(setting), adapted_model(setting)
    x, own = embeddings(setting, base), embeddings(setting, model)
    with merged(whole):
        jobs: dict[str, Job] = {
            BASE: lambda: forward(base, x),
            "merged, forward": lambda: forward(whole, x),
            "additive form, forward": lambda: forward(model, own),
            BOTH: lambda: backward(loss(base, x)),
            "additive form, forward and backward": lambda: backward(loss(model, own)),
            "materialized form, forward and backward": lambda: _materialized(model, own),
        }
        timed = interleaved(jobs, device=setting.device, budget=3 * setting.budget)
    once = setting.seconds_to_compute(operations(setting))
    shape = runnable(setting)
    return rows_of(
        timed, group="adapter", baseline=BASE,
        settings={
            "hidden": shape.hidden, "layers": shape.layers, "tokens": setting.tokens, "dtype": str(setting.dtype),
        },
        baselines={job: BOTH for job in jobs if job.endswith("backward")},
        bounds={job: 2 * once if job.endswith("backward") else once for job in jobs},
    )  # fmt: skip


@torch.no_grad()
def forward(model: nn.Module, x: Tensor) -> Tensor:
    """Logits (B, T, vocabulary) of embeddings (B, T, hidden), without a graph."""
    logits: Tensor = model(inputs_embeds=x).logits
    return logits


def loss(model: nn.Module, x: Tensor) -> Tensor:
    """A scalar that depends on every logit."""
    return row_losses(model, x).mean()


def row_losses(model: nn.Module, x: Tensor) -> Tensor:
    """One for each row of the batch, (B,)."""
    return torch.logsumexp(model(inputs_embeds=x).logits.float(), dim=-1).mean(dim=-1)


def backward(value: Tensor) -> None:
    """Accumulates into `.grad`, as training does."""
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _materialized(model: nn.Module, x: Tensor) -> None:
    with materialized(model):
        backward(loss(model, x))
