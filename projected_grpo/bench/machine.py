"""The machine that is measured on: what it is, how busy, and how fast it moves and multiplies at best."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from projected_grpo import kernels
from projected_grpo.bench.timing import interleaved
from projected_grpo.errors import SettingError

COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes; more than the caches that one core has to itself
MULTIPLIED = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What figures belong to.

    bandwidth: bytes a second, read and written, of a copy that is larger than the caches.
    flops: floating-point operations a second of a square matrix product, in the dtype of the model.
    load: of the last minute, before anything was measured; per core, so that 1 is busy and above 1 crowded.
    loops: what may compute large splits, see `projected_grpo.kernels.named`; None where nothing but torch does.
    """

    device: str
    processor: str
    cores: int
    threads: int
    load: float | None
    python: str
    torch: str
    bandwidth: float
    flops: float
    loops: str | None = None  # older reports have none


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Inside the block torch computes on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable(device: str) -> torch.device:
    """A device that tensors can be put on.

    Raises:
        SettingError: there is no such device here.
    """
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"--device {device!r} is not to be had here ({reason}); leave it out, or name another."
        ) from None


def look(device: torch.device, dtype: torch.dtype, budget: float) -> Machine:
    """Names the machine and measures it, for about `budget` seconds."""
    count = COPIED.get(device.type, COPIED["cpu"]) // 4
    source = torch.rand(count, device=device)  # written to, so that no page of it is the shared page of zeros
    target = torch.rand(count, device=device)
    size = MULTIPLIED.get(device.type, MULTIPLIED["cpu"])
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    jobs = {"copy": lambda: target.copy_(source), "product": lambda: a @ b}
    timed = interleaved(jobs, device=device, budget=budget)
    return Machine(
        device=str(device),
        processor=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=load(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        bandwidth=2 * 4 * count / timed.timing("copy").fastest,
        flops=2 * size**3 / timed.timing("product").fastest,
        loops=kernels.named() if device.type == "cpu" else None,
    )


def load() -> float | None:
    """Processes that want a core, per core, over the last minute; None where the system doesn't tell."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (OSError, AttributeError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
