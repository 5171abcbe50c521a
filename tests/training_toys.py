"""Runs of a second: the testbed's warmed-up model, a handful of prompts, a few steps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projected_grpo.training import (
    BasisConfig,
    EvaluationConfig,
    GRPOConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    Trainer,
)
from projected_grpo.training.checkpoints import named

TOY = TrainConfig(
    preset="toy",
    grpo=GRPOConfig(steps=5, prompts=6, group=6, micro_batch=16, generation_batch=64, max_norm=0.05, kl_beta=0.01),
    basis=BasisConfig(pairs=6, k=3, refresh_every=3),
    teacher=TeacherConfig(teach_pairs=True, mix=0.34, teacher_steps=4),
    evaluation=EvaluationConfig(evaluate_every=2, evaluation_prompts=32),
    run=RunConfig(checkpoint_every=2),
)


def toy(place: Path | None = None, **sections: Any) -> TrainConfig:
    """TOY with some settings changed: toy(grpo={"steps": 3}, routing={"intervention": "erase"})."""
    changed = {name: replace(getattr(TOY, name), **changes) for name, changes in sections.items()}
    config = replace(TOY, **changed)
    return replace(config, run=replace(config.run, out=place))


def trained(config: TrainConfig, **watchers: Any) -> dict[str, Tensor]:
    """Every vector at the end of a run; one that leaves nothing behind if no folder is configured."""
    with Trainer.begin(config, **watchers) if config.run.out is not None else Trainer(config, None, **watchers) as run:
        run.run()
        return {name: value.clone() for name, value in named(run.policy.vectors).items()}


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def moved(vectors: dict[str, Tensor], role: str) -> bool:
    return any(bool(value.any()) for name, value in vectors.items() if name.endswith(role))
