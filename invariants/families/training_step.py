"""training.*: single steps of a real run, held against what they should have been made of."""

from collections.abc import Callable

import torch
from torch import Tensor

from invariants.bounds import gamma, unit_roundoff
from invariants.contracts.train import FirstStep, TrainSetting
from invariants.errors import SubjectContractError
from invariants.measurement import Measurement, elementwise, same_bits, worst
from invariants.on_tokens import size, token_gradients
from invariants.registry import invariant
from invariants.trials import TrainTrial
from reference import grpo

Gradient = dict[str, Tensor]  # module -> (r,)
SEEDS = 8  # how many first steps are looked at for one in which what a check is about occurs


def has_a_teacher(setting: TrainSetting) -> str | None:
    """Rollouts of another source are trained on."""
    return None if setting.teacher else "the trainer has no teacher"


def first_step(trial: TrainTrial, occurs: Callable[[FirstStep], object]) -> FirstStep | None:
    """A first step in which something occurs, of those from a few seeds; the last of them if it never does."""
    first = None
    for seed in range(trial.case.seed, trial.case.seed + SEEDS):
        first = trial.run(steps=1, seed=seed).first
        if first is None:
            return None
        check_first(first)
        if occurs(first):
            return first
    return first


def lengths(first: FirstStep) -> set[int]:
    """Of the completions."""
    return {len(completion) for completion in first.completions}


def equal_groups(first: FirstStep) -> int:
    """Groups in which all rewards are equal."""
    return int((first.rewards == first.rewards[:, :1]).all(dim=1).sum())


def fooled(first: FirstStep) -> bool:
    """Whether some rollout of a teacher passes and is not solved."""
    if first.teacher is None or first.grade is None:
        return False
    return any(first.grade(int(i)) == (True, False) for i in first.teacher.nonzero())


def due(first: FirstStep) -> tuple[Gradient, float]:
    """The gradient of the first step in float64, one completion at a time, and the size of what it adds up.

    Each completion stands alone, without padding and without a batch. At ratio 1 its loss is -A sum log pi over the
    denominator; the size is that of all tokens' gradients together, as if none took away from another.
    """
    prompts, group = first.rewards.shape
    A = grpo.advantages(first.rewards.double()).flatten()
    denominator = prompts * group * first.max_new_tokens
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in first.vectors.items()}
    length = 0.0
    for prompt, completion, advantage in zip(first.prompts, first.completions, A, strict=True):
        for of_token in token_gradients(first.logits, first.vectors, prompt, completion):
            total = {name: t - advantage / denominator * of_token[name] for name, t in total.items()}
            length += float(advantage.abs()) / denominator * size(of_token)
    return total, length


def check_first(first: FirstStep) -> None:
    """Refuses evidence whose parts do not fit together."""
    B = first.rewards.numel()
    if first.rewards.dim() != 2 or len(first.prompts) != B or len(first.completions) != B:
        raise SubjectContractError(
            f"train: the first step shows rewards {tuple(first.rewards.shape)}, {len(first.prompts)} prompts and "
            f"{len(first.completions)} completions; they must be (prompts, group), and one of each for every reward."
        )
    if first.gradient.keys() != first.vectors.keys():
        raise SubjectContractError("train: the first step's gradient and vectors must name the same modules.")


@invariant(
    "training.step_gradient",
    theorem="T16",
    capability="train",
    events=("gradient is not zero", "completions of unequal length"),
    reads="its first step",
    per="setting",
)
def step_gradient(trial: TrainTrial) -> Measurement | None:
    """The first step's gradient is that of the Dr.GRPO loss on its rollouts, recomputed one completion at a time.

    gradient = -sum A grad log pi(token) / (prompts x group x max_new_tokens), over students and teachers alike. Each
    side may be off, in first order, by gamma(n) times the size of the tokens' gradients added up in absolute value,
    where n counts the rounded operations in a row from a token to a logit and back, and those of the sums.

    Fails when: a step is made on something else than the rollouts that it shows.

    Likely cause: a buffer that is not cleared between two backward passes, an advantage over a standard deviation, a
    loss over a length or over the prompts of a micro-batch, a mask by token id, an index that is off by one.
    """
    first = first_step(trial, lambda first: len(lengths(first)) > 1 and equal_groups(first) < len(first.rewards))
    if first is None:
        return None
    exact, length = due(first)
    n = first.roundings + sum(len(completion) for completion in first.completions)
    dtypes = {first.computed_in or torch.float64, *(g.dtype for g in first.gradient.values())}
    bound = 2 * gamma(n, max(dtypes, key=unit_roundoff)) * length
    scale = max(float(g.abs().max()) for g in exact.values())
    measured = [
        elementwise(first.gradient[name].detach().double() - g, bound, f"{trial.case.label}: {name}", scale=scale)
        for name, g in exact.items()
    ]
    seen = {"gradient is not zero": scale > 0, "completions of unequal length": len(lengths(first)) > 1}
    return worst(measured, occurred=seen)


@invariant(
    "training.zero_variance",
    theorem="T16",
    capability="train",
    events=("rewards of a group are equal",),
    reads="its first step",
    per="setting",
)
def zero_variance(trial: TrainTrial) -> Measurement | None:
    """A group whose rewards are all equal is passed over: the gradient of its step is a number everywhere.

    Fails when: one prompt that everybody solves, or nobody, ends the run in NaN.

    Likely cause: an advantage that is divided by the standard deviation of its group.
    """
    first = first_step(trial, equal_groups)
    if first is None:
        return None
    measured = [
        Measurement(float((~g.isfinite()).sum()), 0.0, f"{trial.case.label}: {name}")
        for name, g in first.gradient.items()
    ]
    return worst(measured, occurred={"rewards of a group are equal": equal_groups(first)})


@invariant(
    "training.two_grades",
    theorem="T21",
    capability="train",
    applies=has_a_teacher,
    events=("a teacher's rollout passed and is not solved",),
    reads="the grades of its first step",
    per="setting",
)
def two_grades(trial: TrainTrial) -> Measurement | None:
    """What is stored of a rollout, a student's or a teacher's, are the two answers that grading it anew gives.

    Fails when: the log counts an exploit as a solution, or the reward is another than the grader's.

    Likely cause: teacher rollouts are stored with the grade that can be fooled in the place of the true one.
    """
    first = first_step(trial, fooled)
    if first is None or first.grade is None or first.passed is None or first.solved is None or first.teacher is None:
        return None
    B = first.rewards.numel()
    graded = [first.grade(i) for i in range(B)]
    measured = [
        Measurement(float(bool(stored[i]) != graded[i][which]), 0.0, f"{trial.case.label}: rollout {i}, {what}")
        for which, (what, stored) in enumerate((("passed", first.passed), ("solved", first.solved)))
        for i in range(B)
    ]
    return worst(measured, occurred={"a teacher's rollout passed and is not solved": fooled(first)})


@invariant(
    "training.refresh_ablates",
    theorem="T18",
    capability="train",
    events=("a live quarantine", "it would turn the basis"),
    reads="a refresh of its basis",
    per="setting",
)
def refresh_ablates(trial: TrainTrial) -> Measurement | None:
    """A basis that is refreshed during a run is that of the deployed model, as if the quarantine were zero.

    Fails when: the basis turns away from what is still to be removed, towards what the quarantine has not learned yet.

    Likely cause: the refresh extracts from the model as it trains.
    """
    refreshes = trial.run().refreshes
    if not refreshes:
        return None
    measured, live, turned = [], 0, 0
    for number, refresh in enumerate(refreshes):
        with torch.no_grad():
            together = {name: p + refresh.quarantine[name] for name, p in refresh.deployed.items()}
        exact, other = refresh.extract(refresh.deployed), refresh.extract(together)
        live += any(bool(q.any()) for q in refresh.quarantine.values())
        turned += any(not torch.equal(V, other[name]) for name, V in exact.items())
        for name, V in exact.items():
            where = f"{trial.case.label}: refresh {number}, {name}"
            if V.shape != refresh.basis[name].shape:
                measured.append(Measurement(1.0, 0.0, f"{where}: number of axes"))
            else:
                measured.append(same_bits(refresh.basis[name].detach(), V.detach(), where))
    return worst(measured, occurred={"a live quarantine": live, "it would turn the basis": turned})
