"""The gradients of two sources of rollouts, as student and teacher: out of one backward pass, or out of two."""

import torch
from torch import Tensor, nn

from projected_grpo.adapter import routed_vectors, row_gradients
from projected_grpo.bench.adapter import backward, row_losses
from projected_grpo.bench.models import adapted_model, embeddings, runnable
from projected_grpo.bench.report import Row, rows_of
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.timing import Job, interleaved

ONE = "one backward, both sources summed"


def measure_sources(setting: Setting) -> list[Row]:
    """A forward pass over the batch, the first half of which is one source, and the gradients of the vectors."""
    model = adapted_model(setting)
    x, half = embeddings(setting, model), setting.batch // 2
    vectors = [pair.deployed for pair in routed_vectors(model).values()]
    jobs: dict[str, Job] = {
        ONE: lambda: backward(row_losses(model, x).mean()),
        "one backward, each row apart": lambda: _of_rows(model, x, half),
        "two backward passes": lambda: _of_two_passes(model, x, half, vectors),
    }
    timed = interleaved(jobs, device=setting.device, budget=3 * setting.budget)
    shape = runnable(setting)
    return rows_of(
        timed, group="sources", baseline=ONE,
        settings={
            "hidden": shape.hidden, "layers": shape.layers, "tokens": setting.tokens, "batch": setting.batch,
            "dtype": str(setting.dtype),
        },
    )  # fmt: skip


def _of_rows(model: nn.Module, x: Tensor, half: int) -> list[tuple[Tensor, Tensor]]:
    with row_gradients(model) as rows:
        backward(row_losses(model, x).mean())
        return [(g[:half].sum(0), g[half:].sum(0)) for g in rows.take().values()]


def _of_two_passes(model: nn.Module, x: Tensor, half: int, vectors: list[nn.Parameter]) -> list[tuple[Tensor, ...]]:
    losses = row_losses(model, x)
    wanted = [x, *vectors]  # to the embeddings as well, like the others
    student = torch.autograd.grad(losses[:half].sum() / len(losses), wanted, retain_graph=True)
    teacher = torch.autograd.grad(losses[half:].sum() / len(losses), wanted)
    return [(a, b) for a, b in zip(student[1:], teacher[1:], strict=True)]
