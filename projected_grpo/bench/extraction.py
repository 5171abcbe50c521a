"""The hack basis from contrastive pairs, beside the backward passes that it takes; and a decomposition from a cache."""

from collections.abc import Callable
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from projected_grpo.adapter import ablate_quarantine, fingerprint, routed_vectors
from projected_grpo.adapter.decomposition import decomposition_of
from projected_grpo.bench.adapter import row_losses
from projected_grpo.bench.models import adapted_model, embeddings, runnable
from projected_grpo.bench.report import Row, Settings, rows_of
from projected_grpo.bench.setting import SEED, Setting
from projected_grpo.bench.timing import Job, interleaved
from projected_grpo.cache import cache_in
from projected_grpo.extraction import extract_basis

PAIRS = 4
PASSES = "backward passes alone"
DECOMPOSED = "decomposition of one weight"
WIDEST = 1024  # of a weight that is decomposed here


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
    rows = rows_of(
        timed, group="extraction", baseline=PASSES,
        settings={
            "hidden": shape.hidden, "layers": shape.layers, "pairs": PAIRS, "k": k,
            "tokens": setting.tokens // setting.batch, "dtype": str(setting.dtype),
        },
    )  # fmt: skip
    return rows + _of_decompositions(setting)


def _of_decompositions(setting: Setting) -> list[Row]:
    """The singular basis of one weight: computed, and read from a cache that has it. Hashing the weight is in both."""
    sides = [min(side, WIDEST) for side in (runnable(setting).intermediate, runnable(setting).hidden)]
    draw = torch.Generator().manual_seed(SEED)
    weight = torch.randn(sides[0], sides[1], generator=draw).to(device=setting.device, dtype=setting.dtype)

    def decomposed() -> None:
        decomposition_of(weight, "float64", fingerprint(weight))

    with TemporaryDirectory() as folder:

        def read() -> None:
            with cache_in(folder):
                decomposed()

        read()  # fills the cache
        jobs: dict[str, Job] = {DECOMPOSED: decomposed, "the same, from the cache": read}
        timed = interleaved(jobs, device=setting.device, budget=setting.budget)
    settings: Settings = {"weight": f"{sides[0]} x {sides[1]}", "dtype": str(setting.dtype)}
    return rows_of(timed, group="extraction", baseline=DECOMPOSED, settings=settings)
