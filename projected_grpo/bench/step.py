"""The whole routed step, clip and diagnostics included, beside an optimizer's step with a clip and without routing."""

from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.bench.report import Row, rows_of
from projected_grpo.bench.setting import Setting, make_vectors
from projected_grpo.bench.timing import Job, interleaved
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.routing import Space
from projected_grpo.vectors import VectorPair

MAX_NORM, LEARNING_RATE = 0.5, 1e-4  # the norm is about 0.7 at Qwen3-4B's size, so the clip fires
SPACES: tuple[Space, ...] = get_args(Space)
DEFAULT = "unrouted, AdamW as built"
PATHS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "unrouted, AdamW foreach": {"foreach": True},
    "unrouted, AdamW fused": {"fused": True},
}


def measure_step(setting: Setting) -> list[Row]:
    """For each k: three paths of torch's AdamW, and route in three spaces around the fused one."""
    return [row for k in setting.axes for row in _of(setting, k)]


def _of(setting: Setting, k: int) -> list[Row]:
    basis, g = setting.inputs(k)
    jobs: dict[str, Job] = {}
    for name, path in PATHS.items():
        jobs[name] = unrouted(g, path)
    for space in SPACES:
        # One for each job: a step that follows one that was looked at is another than one that nobody looks at.
        jobs[f"routed in {space} space"] = routed(g, basis, space).step
        jobs[f"routed in {space} space, diagnostics"] = looked_at(routed(g, basis, space))
    timed = interleaved(jobs, device=setting.device, budget=2 * setting.budget)
    bounds = {job: step_bound(setting, k) for job in jobs if job not in PATHS}
    plain = setting.seconds_to_move(8 * setting.entries)  # g, the vectors and two moments read; all but g written
    return rows_of(
        timed, group="step", settings={"modules": len(setting.modules), "k": k}, baseline=DEFAULT,
        bounds={**bounds, **dict.fromkeys(PATHS, plain)},
    )  # fmt: skip


def routed(gradients: dict[str, Tensor], basis: Basis, space: Space) -> RoutedOptimizer:
    """Route around the fused path of AdamW, which holds both sets of vectors."""
    deployed, quarantine = make_vectors(gradients), make_vectors(gradients)
    base = torch.optim.AdamW([*deployed.values(), *quarantine.values()], lr=LEARNING_RATE, fused=True)
    pairs = {name: VectorPair(vector, quarantine[name]) for name, vector in deployed.items()}
    return RoutedOptimizer(base, pairs, basis, space=space, max_norm=MAX_NORM)


def unrouted(gradients: dict[str, Tensor], path: dict[str, Any]) -> Callable[[], object]:
    """A clip by the global norm and a step; the gradients shrink to the limit in the first call, and stay there."""
    parameters = [*make_vectors(gradients).values()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, **path)

    def step() -> None:
        nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()

    return step


def looked_at(optimizer: RoutedOptimizer) -> Callable[[], object]:
    """A step, and its diagnostics read."""

    def step() -> None:
        optimizer.step()
        optimizer.diagnostics()

    return step


def step_bound(setting: Setting, k: int) -> float:
    """Seconds: g, V, the start, two vectors and two moments are read once, and all but the first three written."""
    rows = sum(min(k, module.r) * module.r for module in setting.modules)
    return setting.seconds_to_move(rows + (2 + 4 + 4) * setting.entries)
