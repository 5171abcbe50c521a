"""On a CUDA device: kernels and synchronisations of a routed step, and the split as a graph that is replayed."""

import warnings
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from projected_grpo.bench.report import Row, Settings, rows_of
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.split import split_bound
from projected_grpo.bench.step import DEFAULT, PATHS, SPACES, routed, unrouted
from projected_grpo.bench.timing import Job, interleaved
from projected_grpo.split import GroupedSplit

LAUNCHED, REPLAYED = "split of stacks, launched", "split of stacks, one graph replayed"


def measure_kernels(setting: Setting) -> list[Row]:
    """For the first k: what a step launches and how often it waits, and what diagnostics do after it."""
    k = setting.axes[0]
    basis, g = setting.inputs(k)
    jobs = {DEFAULT: unrouted(g, PATHS[DEFAULT])}
    for space in SPACES:
        optimizer = routed(g, basis, space)
        optimizer.step()
        jobs[f"routed in {space} space"] = optimizer.step
        jobs[f"diagnostics in {space} space"] = optimizer.diagnostics
    settings: Settings = {"modules": len(setting.modules), "k": k}
    return [Row(group="kernels", name=name, settings=settings, numbers=_profiled(job)) for name, job in jobs.items()]


def _profiled(job: Callable[[], object]) -> dict[str, float]:
    job()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        job()
        torch.cuda.synchronize()
    on_the_device = [event for event in profiler.events() or [] if event.device_type.name == "CUDA"]
    copies = sum(event.name.startswith(("Memcpy", "Memset")) for event in on_the_device)
    return {
        "kernels": len(on_the_device) - copies,
        "copies": copies,
        "synchronisations": synchronisations(job),
        "microseconds on the device": float(sum(event.device_time_total for event in on_the_device)),
    }


def synchronisations(job: Callable[[], object]) -> int:
    """How often a call makes the host wait for the device, by torch's own account."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            job()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return sum("synchroniz" in str(each.message) for each in told)


def measure_graph(setting: Setting) -> list[Row]:
    """The split of all stacks, launched by the host, and replayed as one captured graph."""
    return [row for k in setting.axes for row in _captured(setting, k)]


def _captured(setting: Setting, k: int) -> list[Row]:
    basis, g = setting.inputs(k)
    split = GroupedSplit(basis)
    stacks = split.layout.stack(g)

    def launched() -> object:
        return split.of_stacks(stacks, None)

    launched()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launched()
    jobs: dict[str, Job] = {LAUNCHED: launched, REPLAYED: graph.replay}
    timed = interleaved(jobs, device=setting.device, budget=setting.budget)
    return rows_of(
        timed, group="graph", settings={"modules": len(setting.modules), "k": k}, baseline=LAUNCHED,
        bounds=dict.fromkeys(jobs, split_bound(setting, k)),
    )  # fmt: skip
