"""optimizer.noise_*: what independent noise does to the deployed vector along V, axis by axis (T20).

The noise is drawn here, N(0, sigma^2) at every step, so that along orthonormal rows the coefficients are independent
and N(0, sigma^2). No clip limits it. Each axis is a run of its own, and the mean over all n of them is judged.

    w_t       how far the reference optimizer moves a parameter until the end by a gradient of one at step t alone; lr
              for plain SGD
    spread    root mean square over axes of vanilla's V d: it estimates the deviation sigma sqrt(sum w^2) of one axis
    L         max(1, |1 - strength|): what is kept along an axis changes with c by at most this factor

The bound is the five-sigma quantile. What is kept along an axis is an L-Lipschitz function of Gaussian coefficients, or
given the past L times one at most, so the mean over axes is off by more than 5 L sigma sqrt(sum w^2) / sqrt(n) with
probability at most 2 exp(-25/2) = 7.5e-6 (Gaussian concentration; Azuma's inequality for the martingale). The seed is
fixed, so a subject is not judged by luck twice.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invariants.cases import StepCase, orthonormal_rows
from invariants.families.optimizer import drift as rounding_of
from invariants.hypotheses import averages_noise_out, rectifies_gradients, splits_a_sum, strength
from invariants.measurement import Measurement
from invariants.registry import invariant
from invariants.trials import StepTrial

STEPS, SIGMA, QUANTILE = 100, 0.5, 5.0
SHAPES = {"wide": (256, 240), "narrow": (180, 160)}  # name -> (r, k)


@dataclass(frozen=True, kw_only=True)
class OnNoise:
    """Where a run on noise ended along V."""

    kept: Tensor  # (n,): V d of the arm that splits
    vanilla: Tensor  # (n,): V d without a split
    luck: float
    """The quantile of the mean of `kept` about its expectation."""
    rounding: float
    """What rounding adds to it."""

    @property
    def off(self) -> float:
        """How far the mean may be from its expectation."""
        return self.luck + self.rounding

    @property
    def mean(self) -> float:
        """Over axes."""
        return float(self.kept.mean())


def on_noise(trial: StepTrial) -> OnNoise:
    """Both arms on the same noise, from zero."""
    draw = torch.Generator().manual_seed(11)
    case = StepCase(
        basis={name: orthonormal_rows(k, r, draw) for name, (r, k) in SHAPES.items()},
        gradients={
            name: SIGMA * torch.randn(STEPS, r, dtype=torch.float64, generator=draw) for name, (r, _) in SHAPES.items()
        },
        start={name: torch.zeros(r, dtype=torch.float64) for name, (r, _) in SHAPES.items()},
        max_norm=1.0,
        label="noise",
    )
    noisy = replace(trial, case=case)
    split, none = noisy.run(trial.splitting, clipped=False), noisy.run("none", clipped=False)
    kept, vanilla = (
        torch.cat([V @ run.deployed.displacements[name][-1] for name, V in noisy.basis.items()])
        for run in (split, none)
    )
    spread = max(1.0, abs(1 - strength(trial.setting.rule))) * float(vanilla.square().mean().sqrt())
    rounding = rounding_of(noisy, split.deployed, split.quarantine, none.deployed) * of_the_mean(noisy)
    return OnNoise(kept=kept, vanilla=vanilla, luck=QUANTILE * spread / math.sqrt(len(kept)), rounding=rounding)


def of_the_mean(trial: StepTrial) -> float:
    """How far the mean of V e over all axes may be, for entries of e up to 1.

    Rows are orthonormal, so a sum over k axes is at most sqrt(k) |e| <= sqrt(k r) in each module (Cauchy and Schwarz).
    """
    shapes = [V.shape for V in trial.basis.values()]
    return sum(math.sqrt(k * r) for k, r in shapes) / sum(k for k, _ in shapes)


def response(trial: StepTrial) -> Tensor:
    """w (steps,): a coordinate for each step, which has a gradient at that step alone."""
    optimizer = trial.setting.reference
    assert optimizer is not None, "a hypothesis has asked for it"
    p = torch.zeros(STEPS, dtype=torch.float64)
    state = optimizer.start(p)
    for g in torch.eye(STEPS, dtype=torch.float64):
        p, state = optimizer.step(p, g, state)
    return -p


def ratchet(trial: StepTrial) -> float:
    """How far rectified gradients drift: strength E relu(c) = strength sigma / sqrt(2 pi), by w at every step."""
    return strength(trial.setting.rule) * SIGMA / math.sqrt(2 * math.pi) * float(response(trial).sum())


@invariant(
    "optimizer.noise_drift", theorem="T20", capability="routed_step", applies=averages_noise_out,
    events=("vanilla moved", "something held back"), per="setting",
)  # fmt: skip
def noise_drift(trial: StepTrial) -> Measurement:
    """Independent noise moves the deployed vector nowhere along V on average, if the gate is linear given the past.

    Whatever the past decides about an axis, the mean of what is kept of the next coefficient is 0: a martingale.

    Fails when: training on nothing drives the deployed model along V, the farther the longer it trains.

    Likely cause: a gate that rectifies, or one that is called predictable and has seen the gradient that it decides
    about.
    """
    run = on_noise(trial)
    spread = float(run.vanilla.square().mean().sqrt())
    occurred = {"vanilla moved": int(spread > 0), "something held back": int((run.kept != run.vanilla).sum())}
    return Measurement(abs(run.mean), run.off, f"mean over {len(run.kept)} axes", occurred, scale=spread)


@invariant(
    "optimizer.noise_rectified", theorem="T20", capability="routed_step", applies=rectifies_gradients,
    events=("drift told from none",), per="setting",
)  # fmt: skip
def noise_rectified(trial: StepTrial) -> Measurement:
    """One-sided gradients drive the deployed vector along V by lr sigma / sqrt(2 pi) an axis and step of pure noise.

    That is the mean of relu(c) for c ~ N(0, sigma^2), times the overshoot; with momentum lr becomes w_t.

    Fails when: the gate is not relu on each axis, though what it leaves of single gradients may look like it.

    Likely cause: one decision for all axes, a threshold, or a gate that is softened near zero.
    """
    run, expected = on_noise(trial), ratchet(trial)
    occurred = {"drift told from none": int(abs(expected) > 2 * run.luck)}
    where = f"mean over {len(run.kept)} axes"
    return Measurement(abs(run.mean - expected), run.off, where, occurred, scale=abs(expected))


@invariant(
    "optimizer.noise_total", theorem="T20, T12'", capability="routed_step", applies=splits_a_sum,
    events=("told from a ratchet",), per="setting",
)  # fmt: skip
def noise_total(trial: StepTrial) -> Measurement:
    """In displacement space t steps of pure noise drive the deployed vector along V by lr sigma sqrt(t / 2 pi) at most.

    The displacement C of vanilla is N(0, sigma^2 sum w^2), and one split of it keeps between C - strength relu(C) and
    C + strength relu(-C), whose means are these two; gradients that are rectified one by one drift by t instead of its
    root.

    Fails when: what was rectified at one step is added to what was rectified before.

    Likely cause: gradients or updates are split one by one, and their parts added up.
    """
    run, drifts = on_noise(trial), abs(ratchet(trial))
    most = strength(trial.setting.rule) * SIGMA / math.sqrt(2 * math.pi) * float(response(trial).norm())
    occurred = {"told from a ratchet": int(drifts > 2 * (most + run.luck))}
    return Measurement(abs(run.mean), most + run.off, f"mean over {len(run.kept)} axes", occurred, scale=drifts)
