"""Runs the groups that are asked for, each for itself: one that fails is told in a sentence, and the rest goes on."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch

from projected_grpo.bench.adapter import measure_adapter
from projected_grpo.bench.extraction import measure_extraction
from projected_grpo.bench.generation import measure_generation
from projected_grpo.bench.growth import measure_growth
from projected_grpo.bench.grpo import measure_grpo
from projected_grpo.bench.kernels import measure_graph, measure_kernels
from projected_grpo.bench.machine import look, pinned
from projected_grpo.bench.memory import measure_memory
from projected_grpo.bench.models import NARROW, runnable
from projected_grpo.bench.report import Report, Row
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.shapes import ModelShape, Module
from projected_grpo.bench.sources import measure_sources
from projected_grpo.bench.split import measure_split
from projected_grpo.bench.step import measure_step
from projected_grpo.cache import cache_in
from projected_grpo.errors import SettingError

GROUPS: dict[str, Callable[[Setting], list[Row]]] = {
    "split": measure_split,
    "step": measure_step,
    "adapter": measure_adapter,
    "sources": measure_sources,
    "generation": measure_generation,
    "extraction": measure_extraction,
    "grpo": measure_grpo,
    "memory": measure_memory,
    "kernels": measure_kernels,
    "graph": measure_graph,
    "growth": measure_growth,
}
ON_CUDA_ALONE = ("kernels", "graph")
WHEN_ASKED = ("growth",)
RUN_MODELS = ("adapter", "sources", "generation", "extraction", "grpo")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is measured.

    axes: numbers of axes k; tokens, batch: of a training batch; budget: seconds for a group of jobs; threads: of torch.
    """

    axes: tuple[int, ...] = (5, 12)
    tokens: int = 2048
    batch: int = 8
    budget: float = 2.0
    threads: int = 1


QUICK = Options(axes=(5,), tokens=256, batch=4, budget=0.2)


def measure(
    shape: ModelShape,
    modules: list[Module],
    *,
    device: torch.device,
    dtype: torch.dtype,
    options: Options,
    only: Collection[str] = (),
    progress: Callable[[str], object] = lambda _: None,
) -> Report:
    """Measures what is asked for, by default every group but growth.

    Raises:
        SettingError: `only` names no group, or none that this device has, the batch does not divide the tokens into two
            or more rows, or the numbers of axes are not different ones that a module has room for.
    """
    unknown = [name for name in only if name not in GROUPS]
    if unknown:
        raise SettingError(f"There is no group {unknown[0]!r}; choose of {', '.join(GROUPS)}.")
    if only and device.type != "cuda" and set(only) <= set(ON_CUDA_ALONE):
        raise SettingError(
            f"There is nothing to measure, for {' and '.join(only)} is about a CUDA device; name others."
        )
    if options.batch < 2 or options.tokens % options.batch:
        raise SettingError(
            f"A batch of {options.batch} cannot share {options.tokens} tokens; choose a divisor above 1."
        )
    most = max(module.r for module in modules)
    if len(set(options.axes)) < len(options.axes) or not all(1 <= k <= most for k in options.axes):
        given = ", ".join(map(str, options.axes))
        raise SettingError(
            f"k is {given}; it must be different numbers, each from 1 to {most}, as many as the longest vector of "
            f"{shape.name} has entries."
        )
    rows, left_out = list[Row](), list[str]()
    with pinned(options.threads), cache_in(None):
        progress("the machine")
        machine = look(device, dtype, options.budget / 2)
        setting = Setting(
            shape=shape, modules=modules, device=device, dtype=dtype, axes=options.axes, tokens=options.tokens,
            batch=options.batch, budget=options.budget, machine=machine,
        )  # fmt: skip
        for name in only or [name for name in GROUPS if name not in WHEN_ASKED]:
            if name in ON_CUDA_ALONE and device.type != "cuda":
                left_out.append(f"{name}: not measured, for it is about a CUDA device and this is {device}.")
                continue
            progress(name)
            try:
                rows += GROUPS[name](setting)
            except Exception as error:  # a group that fails here must not cost the figures of the others
                reason = str(error).splitlines()[0] if str(error) else "no reason given"
                left_out.append(f"{name}: not measured, for it failed with {type(error).__name__}: {reason}")
    ran = runnable(setting)
    if ran is NARROW and any(row.group in RUN_MODELS for row in rows):
        left_out.append(
            f"{', '.join(RUN_MODELS)}: run on a narrow model (hidden {ran.hidden}, {ran.layers} layers), for a layer "
            f"of {shape.name} takes seconds a batch on {options.threads} thread(s)."
        )
    return Report(
        machine=machine, shape=shape.name, rows=rows, left_out=left_out,
        settings={
            "modules": len(modules), "entries": setting.entries, "dtype": str(dtype),
            "vectors": str(setting.vector_dtype), "tokens": options.tokens, "batch": options.batch,
        },
    )  # fmt: skip
