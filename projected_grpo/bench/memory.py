"""What routing keeps in memory between steps, and what a step takes on top of it at its peak."""

import torch
from torch import Tensor

from projected_grpo.bench.counts import counted
from projected_grpo.bench.report import Row
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.step import SPACES, routed
from projected_grpo.routing import Space


def measure_memory(setting: Setting) -> list[Row]:
    """Bytes for each k and space: vectors and their optimizer's state, V, what routing keeps, and a step's operators.

    The peak is above all that is kept: of the memory that operators return, and on CUDA by the allocator's own count.
    """
    return [_of(setting, k, space) for k in setting.axes for space in SPACES]


def _of(setting: Setting, k: int, space: Space) -> Row:
    basis, g = setting.inputs(k)
    optimizer = routed(g, basis, space)
    optimizer.step()
    state = optimizer.state_dict()
    vectors = _bytes([p for group in optimizer.param_groups for p in group["params"]])
    counts = counted(optimizer.step)
    numbers = {
        "vectors, bytes": vectors,
        "optimizer state, bytes": _bytes([t for own in optimizer.state.values() for t in own.values()]),
        "basis, bytes": _bytes(list(basis.values())),
        "kept by routing, bytes": _bytes([t for part in state["routing"]["progress"].values() for t in part.values()]),
        "allocated by a step, bytes": float(counts.allocated),
        "peak of a step, bytes": float(counts.peak),
    }
    if setting.device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        optimizer.step()
        torch.cuda.synchronize()
        numbers["peak of a step by the allocator, bytes"] = float(torch.cuda.max_memory_allocated() - before)
    return Row(
        group="memory", name=f"routed in {space} space", numbers=numbers,
        settings={"modules": len(setting.modules), "k": k},
    )  # fmt: skip


def _bytes(tensors: list[Tensor]) -> float:
    return float(sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor)))
