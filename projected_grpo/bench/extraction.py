"""The hack basis from contrastive pairs, beside the backward passes that it cannot do without."""

from collections.abc import Callable

import torch
from torch import Tensor

from projected_grpo.adapter import ablate_quarantine, routed_vectors
from projected_grpo.bench.adapter import row_losses
from projected_grpo.bench.models import adapted_model, embeddings, runnable
from projected_grpo.bench.report import Row, rows_of
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.timing import Job, interleaved
from projected_grpo.extraction import extract_basis

PAIRS = 4
PASSES = "backward passes alone"


def measure_extraction(setting: Setting) -> list[Row]:
    """A basis from PAIRS pairs of completions, each one row of the batch long."""
    model, k = adapted_model(setting), min(setting.axes[0], PAIRS)
    x = embeddings(setting, model)
    vectors = [pair.deployed for pair in routed_vectors(model).values()]

    def loss(row: int) -> Callable[[], Tensor]:
        return lambda: row_losses(model, x[row % len(x) : row % len(x) + 1]).sum()

    pairs = [(loss(2 * i), loss(2 * i + 1)) for i in range(PAIRS)]

    def passes() -> None:
        with ablate_quarantine(model):
            for one in (one for pair in pairs for one in pair):
                torch.autograd.grad(one(), vectors)

    jobs: dict[str, Job] = {PASSES: passes, "extraction": lambda: extract_basis(model, pairs, k)}
    timed = interleaved(jobs, device=setting.device, budget=2 * setting.budget)
    shape = runnable(setting)
    return rows_of(
        timed, group="extraction", baseline=PASSES,
        settings={
            "hidden": shape.hidden, "layers": shape.layers, "pairs": PAIRS, "k": k,
            "tokens": setting.tokens // setting.batch, "dtype": str(setting.dtype),
        },
    )  # fmt: skip
