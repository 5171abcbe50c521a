"""Times of several jobs in one run, taken in turn, so that what slows the machine down slows all of them down.

A ratio is the median of the ratios of each round, and not the ratio of two medians: on a machine whose speed drifts by
a half within a minute, a job and its baseline of the same round have still seen the same machine.
"""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Job = Callable[[], object]
WARM_UPS = 2
FEWEST, MOST = 5, 400  # rounds


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median, the quartiles, the fastest, over how many rounds."""

    median: float
    low: float
    high: float
    fastest: float
    rounds: int


@dataclass(frozen=True)
class Timed:
    """Every job's seconds, round by round."""

    seconds: Mapping[str, list[float]]

    def timing(self, job: str) -> Timing:
        """The summary of one job."""
        own = sorted(self.seconds[job])
        low, median, high = statistics.quantiles(own, n=4, method="inclusive")
        return Timing(median, low, high, own[0], len(own))

    def ratio(self, job: str, baseline: str) -> float:
        """The median over rounds of a job's time by its baseline's."""
        pairs = zip(self.seconds[job], self.seconds[baseline], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def interleaved(jobs: Mapping[str, Job], *, device: torch.device, budget: float) -> Timed:
    """Runs all jobs in turn, each round beginning with another one, until the budget is spent.

    Arguments:
        jobs: name → a call without arguments.
        device: on CUDA the time is that between two events on the stream; elsewhere that of the clock.
        budget: seconds for all rounds together; at least five rounds are run whatever they take.
    """
    clock = _on_the_stream if device.type == "cuda" else _by_the_clock
    for job in jobs.values():
        for _ in range(WARM_UPS):
            job()
    names, seconds = list(jobs), {name: list[float]() for name in jobs}
    collecting = gc.isenabled()
    gc.disable()
    try:
        started = time.perf_counter()
        for number in range(MOST):
            if number >= FEWEST and time.perf_counter() - started > budget:
                break
            first = number % len(names)
            for name in names[first:] + names[:first]:
                seconds[name].append(clock(jobs[name]))
    finally:
        if collecting:
            gc.enable()
    return Timed(seconds)


def _by_the_clock(job: Job) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def _on_the_stream(job: Job) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch leaves it untyped
    torch.cuda.synchronize()
    before.record()
    job()
    after.record()
    torch.cuda.synchronize()
    return float(before.elapsed_time(after)) / 1e3
