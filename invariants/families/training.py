"""training.*: what a run may depend on, measured on short real runs; all but one compare bits.

T14  the same seed gives the same run, stopped and resumed or not
T19  nothing that only looks (the oracle, an evaluation, a log, a gauge) changes one bit of what is trained
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from invariants.contracts.train import Flag, TrainResult, TrainSetting
from invariants.errors import SubjectContractError
from invariants.measurement import NOTHING, Events, Measurement, same_bits, worst
from invariants.registry import invariant
from invariants.trials import TrainTrial
from invariants.trials.train import Parameters, parameters

Applies = Callable[[TrainSetting], str | None]


def has(flag: Flag, *arms: str) -> Applies:
    """The trainer can be asked for it, and has these arms."""

    def reason(setting: TrainSetting) -> str | None:
        if flag not in setting.flags:
            return f"the trainer cannot be asked for {flag}"
        missing = [arm for arm in arms if arm not in setting.interventions]
        return f"the trainer has no {' and no '.join(missing)}" if missing else None

    return reason


def resumable(setting: TrainSetting) -> str | None:
    """A run can be stopped and go on."""
    return None if setting.resumable else "the trainer cannot be resumed"


def routes(setting: TrainSetting) -> str | None:
    """There is a quarantine that is fed."""
    return None if "route" in setting.interventions else "the trainer has no route"


def same_parameters(one: Parameters, other: Parameters, where: str, occurred: Events = NOTHING) -> Measurement:
    """Zero where everything that two runs have trained is equal in every bit."""
    if one.keys() != other.keys():
        raise SubjectContractError(f"train: two runs have trained different parameters: {sorted(one.keys() ^ other)}.")
    measured = []
    for name, p in one.items():
        if p.shape != other[name].shape:
            raise SubjectContractError(f"train: {name} has another shape in another run.")
        measured.append(same_bits(p.flatten(), other[name].flatten(), f"{where}: {name}"))
    return worst(measured, occurred=occurred)


def moved(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    """Whether two sets of parameters differ at all."""
    return any(not torch.equal(p, b[name]) for name, p in a.items())


def looked_at(trial: TrainTrial, flag: Flag, seen: Callable[[TrainResult], Events], **arm: Any) -> Measurement:
    """What turning something on that only looks does to the parameters: nothing."""
    plain, looking = trial.run(**arm), trial.run(**arm, **{flag: True})
    return same_parameters(
        parameters(plain), parameters(looking), f"{trial.case.label}, with and without {flag}", seen(looking)
    )


@invariant("training.reproducible", theorem="T14", capability="train", events=("another seed differs",), per="setting")
def reproducible(trial: TrainTrial) -> Measurement:
    """The same seed trains the same bits, and another seed others.

    Fails when: a run cannot be made again, so that nothing about it can be shown.

    Likely cause: a draw from a random state that the run does not own, or an order that is another one in each process.
    """
    first, again = trial.run(), trial.anew()
    other = trial.run(seed=trial.case.seed + 1)
    seen = {"another seed differs": moved(parameters(first), parameters(other))}
    return same_parameters(parameters(first), parameters(again), f"{trial.case.label}, twice", seen)


@invariant(
    "training.oracle_blind",
    theorem="T19",
    capability="train",
    applies=has("permuted_oracle"),
    events=("a label was changed", "right and wrong ones"),
    reads="the oracle's labels",
    per="setting",
)
def oracle_blind(trial: TrainTrial) -> Measurement | None:
    """Permuting the oracle's labels does not change one bit of what is trained: they are logged, and never fed.

    Fails when: the run is paid, or its gradient changed, by a truth that no grader of its own would know.

    Likely cause: the oracle's verdict in place of the grader's in the reward, or in the choice of what is split.
    """
    plain, permuted = trial.run(), trial.run(permuted_oracle=True)
    if plain.oracle is None or permuted.oracle is None:
        return None
    labels, others = ([bool(label) for label in run.oracle or ()] for run in (plain, permuted))
    seen = {"a label was changed": labels != others, "right and wrong ones": len(set(labels)) > 1}
    return same_parameters(parameters(plain), parameters(permuted), f"{trial.case.label}, other labels", seen)


@invariant(
    "training.evaluation_neutral",
    theorem="T19",
    capability="train",
    applies=has("evaluate"),
    events=("evaluated",),
    reads="how many evaluations there were",
    per="setting",
)
def evaluation_neutral(trial: TrainTrial) -> Measurement | None:
    """Evaluating during a run does not change one bit of what is trained.

    Fails when: a run that was looked at is another run.

    Likely cause: evaluations draw from the training's random state, or leave the model ablated or in another mode.
    """
    if trial.run(evaluate=True).evaluations is None:
        return None
    return looked_at(trial, "evaluate", lambda looking: {"evaluated": looking.evaluations or 0})


@invariant(
    "training.logging_neutral",
    theorem="T19",
    capability="train",
    applies=has("log"),
    events=("logged",),
    reads="how many records were logged",
    per="setting",
)
def logging_neutral(trial: TrainTrial) -> Measurement | None:
    """Writing a log does not change one bit of what is trained.

    Fails when: what is written down is not what would have happened.

    Likely cause: a sample drawn for the log from the training's random state, or a norm that is computed in place.
    """
    if trial.run(log=True).records is None:
        return None
    return looked_at(trial, "log", lambda looking: {"logged": looking.records or 0})


@invariant(
    "training.measuring_neutral",
    theorem="T19",
    capability="train",
    applies=has("measure", "none"),
    events=("something would be removed",),
    reads="what it measured",
    per="setting",
)
def measuring_neutral(trial: TrainTrial) -> Measurement | None:
    """Measuring under vanilla training what a split would remove does not change one bit of what is trained.

    Fails when: the baseline is not the baseline once somebody looks at it.

    Likely cause: the split is made in place, or its kept part is left in the gradient's buffer.
    """
    if trial.run(intervention="none", measure=True).removed is None:
        return None

    def seen(looking: TrainResult) -> Events:
        return {"something would be removed": sum(norm > 0 for norm in looking.removed or ())}

    return looked_at(trial, "measure", seen, intervention="none")


@invariant(
    "training.resumes",
    theorem="T14",
    capability="train",
    applies=resumable,
    events=("stopped before the end", "the rest changed it", "the seed matters"),
    per="setting",
)
def resumes(trial: TrainTrial) -> Measurement:
    """A run that is stopped after any step and goes on trains the same bits as one that was never stopped.

    Fails when: a run that was interrupted is another run.

    Likely cause: the schedule, the order of the data, a random state or the optimizer's moments begin anew.
    """
    whole = parameters(trial.run())
    measured, changed = [], 0
    for after in range(1, trial.case.steps):
        stopped, resumed = trial.interrupted(after)
        changed += moved(parameters(stopped), whole)
        measured.append(same_parameters(whole, parameters(resumed), f"stopped after step {after}"))
    seen = {
        "stopped before the end": len(measured), "the rest changed it": changed,
        "the seed matters": moved(whole, parameters(trial.run(seed=trial.case.seed + 1))),
    }  # fmt: skip
    return worst(measured, occurred=seen)


@invariant(
    "training.quarantine_moves_iff_routed",
    theorem="T13",
    capability="train",
    applies=routes,
    events=("something removed",),
    reads="what it removed",
    per="setting",
)
def quarantine_moves_iff_routed(trial: TrainTrial) -> Measurement | None:
    """Under route the quarantine takes what is removed, and moves; under none and erase it stays at zero, every bit.

    Fails when: the arm that was run is not the arm that was asked for.

    Likely cause: the intervention is not passed on to the optimizer, or what erasing drops is kept after all.
    """
    routed = trial.run(intervention="route")
    if routed.removed is None:
        return None
    still = not any(bool(p.any()) for p in routed.quarantine.values())
    measured = [Measurement(float(still), 0.0, f"{trial.case.label}, route: the quarantine has not moved")]
    for arm in ("none", "erase"):
        if arm in trial.setting.interventions:
            for name, p in trial.run(intervention=arm).quarantine.items():
                measured.append(same_bits(p.flatten(), torch.zeros_like(p).flatten(), f"{arm}: quarantine, {name}"))
    return worst(measured, occurred={"something removed": sum(norm > 0 for norm in routed.removed)})
