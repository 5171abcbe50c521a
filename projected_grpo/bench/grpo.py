"""A whole GRPO step without and with routing, and which share of it the optimizer's part is."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from projected_grpo.adapter import materialized, merged, routed_vectors
from projected_grpo.bench import generation
from projected_grpo.bench.adapter import backward, loss
from projected_grpo.bench.models import adapted_model, embeddings, runnable
from projected_grpo.bench.report import Row, rows_of
from projected_grpo.bench.setting import SEED, Setting, make_basis
from projected_grpo.bench.shapes import Module
from projected_grpo.bench.step import LEARNING_RATE, MAX_NORM, looked_at
from projected_grpo.bench.timing import Job, interleaved
from projected_grpo.optimizer import RoutedOptimizer

UNROUTED = "GRPO step, unrouted"


def measure_grpo(setting: Setting) -> list[Row]:
    """Sampling with merged weights, a forward and a backward pass over the batch, clip and optimizer; grading costs
    what the task's does, and is left out.

    Unrouted is AdamW as torch builds it; routed, in displacement space around the fused one, has its diagnostics read
    at every step. The parts alone run on the gradients of the last whole step.
    """
    k = setting.axes[0]
    shape = runnable(setting)
    draw = torch.Generator().manual_seed(SEED)
    prompts = torch.randint(shape.vocabulary, (setting.batch, generation.PROMPT), generator=draw).to(setting.device)
    plain, routed = _unrouted(adapted_model(setting, quarantine=False)), _routed(adapted_model(setting), k)
    jobs: dict[str, Job] = {
        UNROUTED: partial(_step, setting, prompts, *plain),
        "GRPO step, routed": partial(_step, setting, prompts, *routed),
        "clip and AdamW alone": plain[1],
        "routed step and diagnostics alone": routed[1],
    }
    timed = interleaved(jobs, device=setting.device, budget=3 * setting.budget)
    return rows_of(
        timed, group="grpo", baseline=UNROUTED,
        settings={
            "hidden": shape.hidden, "layers": shape.layers, "k": k, "tokens": setting.tokens, "batch": setting.batch,
            "new tokens": generation.NEW, "dtype": str(setting.dtype),
        },
    )  # fmt: skip


Trained = tuple[nn.Module, Callable[[], object]]  # a model, and the optimizer's part of a step


def _step(setting: Setting, prompts: Tensor, model: nn.Module, optimize: Callable[[], object]) -> None:
    with merged(model):
        generation.sampled(model, prompts)
    for pair in routed_vectors(model).values():
        pair.deployed.grad = None
    half = setting.dtype.itemsize == 2  # of which the trainer runs the additive form
    with nullcontext() if half else materialized(model):
        backward(loss(model, embeddings(setting, model)))
    optimize()


def _unrouted(model: nn.Module) -> Trained:
    parameters = [pair.deployed for pair in routed_vectors(model).values()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)

    def optimize() -> None:
        nn.utils.clip_grad_norm_(parameters, MAX_NORM)
        optimizer.step()

    return model, optimize


def _routed(model: nn.Module, k: int) -> Trained:
    vectors = routed_vectors(model)
    modules = [Module(name, pair.deployed.numel(), pair.deployed.numel()) for name, pair in vectors.items()]
    first = next(iter(vectors.values())).deployed
    basis = make_basis(modules, k, device=first.device, dtype=first.dtype)
    base = torch.optim.AdamW([v for pair in vectors.values() for v in pair if v is not None], LEARNING_RATE, fused=True)
    return model, looked_at(RoutedOptimizer(base, model, basis, max_norm=MAX_NORM))
