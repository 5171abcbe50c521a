"""This package as a trainer and as a grader, for the suite."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from invariants import ContrastivePair, Extraction, FirstStep, Graded, GradeRequest, Refresh, TrainRequest, TrainResult
from projected_grpo.environment import Case, Mode
from projected_grpo.grading import Grader, Limits, Submission
from projected_grpo.training import (
    BasisConfig,
    EvaluationConfig,
    GRPOConfig,
    ModelConfig,
    RoutingConfig,
    RunConfig,
    TeacherConfig,
    TrainConfig,
    Trainer,
)
from projected_grpo.training.hack_basis import extract
from projected_grpo.training.policy import Policy, load
from projected_grpo.training.task import Prompt, Scored, Task, TokenPair
from projected_grpo.training.trainer import Refreshed, Seen

# Small, but with everything: two sources, several micro-batches, a clip that fires, a refresh in the middle.
MODEL = ModelConfig(dtype="float64")
GRPO = GRPOConfig(prompts=8, group=4, micro_batch=7, generation_batch=16, max_norm=0.05, kl_beta=0.01)
BASIS = BasisConfig(pairs=4, k=2, held_out=0.34, relative_floor=0.5, refresh_every=2, least_overlap=0.0)
TEACHER = TeacherConfig(teach_pairs=True, mix=0.25)


def train(request: TrainRequest) -> TrainResult:
    """One run of the trainer on the testbed, in float64."""
    watcher = _Watcher(request)
    place = request.folder / "run"
    measured = request.measure or request.intervention != "none"
    config = TrainConfig(
        preset="suite",
        model=MODEL,
        grpo=replace(GRPO, steps=request.steps),
        routing=RoutingConfig(intervention=request.intervention),
        basis=replace(BASIS, measure=request.measure, refresh_every=BASIS.refresh_every if measured else 0),
        teacher=TEACHER,
        evaluation=EvaluationConfig(evaluate_every=1 if request.evaluate else 0, evaluation_prompts=16),
        run=RunConfig(
            out=place, seed=request.seed, checkpoint_every=request.stop_after or request.steps, log=request.log
        ),
    )
    watchers: dict[str, Any] = {"tell": watcher.tell, "watch": watcher.watch, "around": watcher.around}
    with Trainer.resume(place, **watchers) if request.resume else Trainer.begin(config, **watchers) as trainer:
        watcher.begin(trainer, request)
        trainer.run(until=request.stop_after)
        vectors = trainer.policy.vectors
        return TrainResult(
            deployed={name: pair.deployed.detach().clone() for name, pair in vectors.items()},
            quarantine={
                name: pair.quarantine.detach().clone() for name, pair in vectors.items() if pair.quarantine is not None
            },
            steps=watcher.steps,
            oracle=watcher.oracle,
            evaluations=watcher.evaluations,
            records=watcher.events if request.log else 0,
            removed=watcher.removed,
            first=watcher.first,
            refreshes=watcher.refreshes,
            extractions=watcher.extractions,
        )


class _Relabelled:
    """A task whose oracle gives each verdict to the rollout after it, if asked to, and notes what it said."""

    def __init__(self, task: Task, watcher: "_Watcher") -> None:
        self._task, self._watcher = task, watcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def grade(self, prompts: Sequence[Prompt], completions: Tensor) -> Scored:
        scored = self._task.grade(prompts, completions)
        if self._watcher.request.permuted_oracle:
            scored = replace(scored, solved=~scored.solved.roll(1))
        self._watcher.oracle += scored.solved.tolist()
        return scored


class _Watcher:
    """Collects the evidence of a run."""

    trainer: Trainer

    def __init__(self, request: TrainRequest) -> None:
        self.request = request
        self.steps = self.evaluations = self.events = 0
        self.oracle: list[bool] = []
        self.removed: list[float] = []
        self.first: FirstStep | None = None
        self.refreshes: list[Refresh] = []
        self.extractions: list[Extraction] = []
        self.separation: float | None = None  # of the basis that was extracted last, as it was logged

    def begin(self, trainer: Trainer, request: TrainRequest) -> None:
        self.trainer = trainer
        if trainer.config.extracts and not request.resume:
            self.extractions.append(self._extraction(dict(trainer.optimizer.basis)))

    def around(self, task: Task) -> Any:
        return _Relabelled(task, self)

    def tell(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        self.events += 1
        self.steps += event == "step"
        self.evaluations += event == "evaluation"
        if event in ("run", "refresh"):
            self.separation = values["basis_separation"]
        if event == "refresh":
            self.extractions.append(self._extraction(self.refreshes[-1].basis))
        if event == "step" and values.get("cos_pre") is not None:
            self.removed.append(values["cos_pre"] * values["grad_norm_pre_clip"])

    def watch(self, seen: Seen | Refreshed) -> None:
        if isinstance(seen, Refreshed):
            self.refreshes.append(self._refresh(seen))
        elif seen.step == 1:
            self.first = self._first(seen)

    def _first(self, seen: Seen) -> FirstStep:
        rollouts, policy = seen.rollouts, self.trainer.policy
        batch = rollouts.completions
        fresh = _policy()
        _reset(fresh)
        gradients = {name: pair.deployed.grad for name, pair in policy.vectors.items()}
        task = self.trainer.task

        def grade(b: int) -> tuple[bool, bool]:
            scored = task.grade([rollouts.prompts[b]], batch.ids[b : b + 1])
            return bool(scored.passed[0]), bool(scored.solved[0])

        return FirstStep(
            prompts=[torch.tensor(prompt.ids) for prompt in rollouts.prompts],
            completions=[ids[own] for ids, own in zip(batch.ids, batch.mask, strict=True)],
            rewards=rollouts.scored.reward.view(GRPO.prompts, GRPO.group),
            max_new_tokens=GRPO.max_new_tokens,
            gradient={name: g.clone() for name, g in gradients.items() if g is not None},
            vectors={name: pair.deployed for name, pair in fresh.vectors.items()},
            logits=lambda tokens: _logits(fresh, tokens),
            computed_in=torch.float32,
            teacher=rollouts.teacher,
            passed=rollouts.scored.passed,
            solved=rollouts.scored.solved,
            grade=grade,
        )

    def _refresh(self, seen: Refreshed) -> Refresh:
        trainer = self.trainer
        vectors = trainer.policy.vectors
        config, pairs, seed = trainer.config.basis, trainer.pairs, trainer.config.run.seed

        def extract_at(deployed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            fresh = _policy()
            _reset(fresh, deployed)
            return dict(extract(fresh, pairs, (), config, seed=seed).basis)

        return Refresh(
            deployed={name: pair.deployed.detach().clone() for name, pair in vectors.items()},
            quarantine={
                name: pair.quarantine.detach().clone() for name, pair in vectors.items() if pair.quarantine is not None
            },
            basis=dict(seen.basis),
            extract=extract_at,
        )

    def _extraction(self, basis: Mapping[str, Tensor]) -> Extraction:
        trainer, fresh = self.trainer, _policy()
        config = trainer.config.basis
        return Extraction(
            pairs=[_pair(pair) for pair in trainer.pairs],
            basis={name: V.clone() for name, V in basis.items()},
            k=config.k,
            relative_floor=config.relative_floor,
            global_floor=config.global_floor,
            deployed={name: pair.deployed.detach().clone() for name, pair in trainer.policy.vectors.items()},
            vectors={name: pair.deployed for name, pair in fresh.vectors.items()},
            logits=lambda tokens: _logits(fresh, tokens),
            computed_in=torch.float32,
            held_out=[_pair(pair) for pair in trainer.held_out],
            separation=self.separation,
        )


def _pair(pair: TokenPair) -> ContrastivePair:
    prompt, hack, clean = (torch.tensor(side) for side in (pair.prompt, pair.hack, pair.clean))
    return ContrastivePair(prompt=prompt, hack=hack, clean=clean)


@cache
def _policy() -> Policy:
    """A policy beside the trained one."""
    return load(MODEL)[0]


@torch.no_grad()
def _reset(policy: Policy, deployed: Mapping[str, Tensor] | None = None) -> None:
    for name, pair in policy.vectors.items():
        for vector in pair:
            if isinstance(vector, nn.Parameter):
                vector.zero_()
        if deployed is not None:
            pair.deployed.copy_(deployed[name])


def _logits(policy: Policy, tokens: Tensor) -> Tensor:
    logits: Tensor = policy.model(input_ids=tokens[None], use_cache=False).logits[0]
    return logits


def grade(requests: Sequence[GradeRequest]) -> list[Graded]:
    """Grades in isolated workers, under limits that end a loop soon; fresh ones, for the suite calls from forks."""
    with Grader(workers=1, limits=Limits(cpu_seconds=1, wall_seconds=3)) as grader:
        verdicts = grader.grade([_submission(request) for request in requests])
    return [Graded(passed=verdict.passed, solved=verdict.solved) for verdict in verdicts]


def _submission(request: GradeRequest) -> Submission:
    cases = tuple(Case(call, expected) for call, expected in request.cases)
    return Submission(program=request.program, cases=cases, mode=Mode(request.mode), setup=request.setup)
