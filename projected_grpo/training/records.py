"""What is logged of a run and of a step: names and values, as `projected_grpo.logs.METRICS` declares them."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from projected_grpo.norms import global_norm
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.split import GroupedSplit
from projected_grpo.training.config import TrainConfig, as_plain
from projected_grpo.training.evaluation import Rates, rates
from projected_grpo.training.hack_basis import Extracted
from projected_grpo.training.learning import Learned
from projected_grpo.training.rollouts import Rollouts
from projected_grpo.training.task import Scored
from projected_grpo.vectors import VectorPair

Values = dict[str, Any]


def of_run(
    config: TrainConfig,
    vectors: Mapping[str, VectorPair],
    extracted: Extracted | None,
    pairs: int,
    versions: Mapping[str, str],
) -> Values:
    """What a log begins with."""
    basis = extracted.basis if extracted else None
    separation = extracted.separation if extracted else None
    return {
        "config": as_plain(config), "versions": dict(versions), "arm": config.routing.intervention,
        "parameters": sum(pair.deployed.numel() for pair in vectors.values()), "modules": len(vectors),
        "basis_axes": sum(basis.k.values()) if basis else None, "basis_digest": basis.digest() if basis else None,
        "basis_pairs": pairs if basis and config.basis.basis_from is None else None,
        "basis_separation": separation.right if separation else None,
        "basis_captured": separation.captured if separation else None,
        "basis_held_out": separation.pairs if separation else None,
    }  # fmt: skip


def of_rollouts(rollouts: Rollouts, group: int) -> Values:
    """What was sampled and what came of it, the student's and the teacher's apart."""
    student, teacher = (_part(rollouts.scored, rows) for rows in (~rollouts.teacher, rollouts.teacher))
    lengths = rollouts.completions.mask.sum(dim=1).cpu()[~rollouts.teacher]
    return {
        "reward": float(rollouts.scored.reward.double().mean()),
        "hack_student": student.hack if student else None, "solve_student": student.solve if student else None,
        "format_student": student.format if student else None,
        "hack_teacher": teacher.hack if teacher else None, "solve_teacher": teacher.solve if teacher else None,
        "teacher_share": float(rollouts.teacher.double().mean()),
        "flat_groups": float((rollouts.advantages.view(-1, group) == 0).all(dim=1).double().mean()),
        "completion_tokens": float(lengths.double().mean()) if len(lengths) else None,
        "student_completions": len(lengths), "teacher_completions": len(rollouts) - len(lengths),
        "completions": len(rollouts), "groups": len(rollouts) // group,
    }  # fmt: skip


def of_learning(learned: Learned, optimizer: RoutedOptimizer, config: TrainConfig) -> Values:
    """The gradient and the step that was made of it; what is hack-ward only where there is a V to say so."""
    seen = optimizer.diagnostics()
    values: Values = {
        "loss": learned.loss, "kl": learned.kl, "source_agreement": learned.agreement,
        "grad_norm_pre_clip": seen.grad_norm_pre_clip, "grad_norm_post_clip": seen.grad_norm_post_clip,
    }  # fmt: skip
    if not config.extracts:
        return values
    student, teacher = learned.hackward(GroupedSplit(optimizer.basis))
    routes = config.routing.intervention == "route"
    return values | {
        "cos_pre": seen.cos_pre, "cos_pre_null": seen.cos_pre_null, "fired": seen.fired, "axes": seen.axes,
        "hackward_student": student, "hackward_teacher": teacher, "hackward_update": seen.hackward_share_update,
        "hackward_parameters": seen.hackward_share_parameters, "drift_ratio": seen.drift_ratio,
        "drift_opposition": seen.drift_opposition if routes else None, "windup": seen.windup,
    }  # fmt: skip


def of_vectors(vectors: Mapping[str, VectorPair], config: TrainConfig) -> Values:
    """How long both sets have become."""
    quarantine = [pair.quarantine.detach() for pair in vectors.values() if pair.quarantine is not None]
    routes = config.routing.intervention == "route"
    return {
        "deployed_norm": float(global_norm(pair.deployed.detach() for pair in vectors.values())),
        "quarantine_norm": float(global_norm(quarantine)) if routes else None,
    }


def _part(scored: Scored, rows: Tensor) -> Rates | None:
    """The rates of some of the completions, (B,) bool; None if there are none."""
    if not bool(rows.any()):
        return None
    mode = tuple(own for own, chosen in zip(scored.mode, rows.tolist(), strict=True) if chosen)
    return rates(Scored(mode, scored.format[rows], scored.passed[rows], scored.solved[rows], scored.reward[rows]))
