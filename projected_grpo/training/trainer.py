"""The trainer: rollouts, one backward pass, one routed step, and now and then a look at what came of it.

    with Trainer.begin(config) as trainer:      or Trainer.resume(folder)
        report = trainer.run()

A step is a function of the configuration, the step's number, the vectors and the optimizer's state, and of nothing
else. So a run that was killed goes on from its last checkpoint to the same bits, and neither evaluation nor logs nor
labels that only logs read can change it.
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save_file

from projected_grpo.adapter import save_deployed
from projected_grpo.basis import Basis
from projected_grpo.errors import EmptyBasisError, SettingError
from projected_grpo.logs import LogWriter, truncate
from projected_grpo.logs import read as read_log
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.training import checkpoints, folder
from projected_grpo.training.config import TrainConfig
from projected_grpo.training.errors import CheckpointError, PoolError
from projected_grpo.training.evaluation import Rates, evaluate, off_the_axes, projected
from projected_grpo.training.hack_basis import (
    Extracted,
    chosen_pairs,
    extract,
    first_basis,
    mean_overlap,
    placeholder,
    same_way,
)
from projected_grpo.training.inputs import absolute, changes, check_same, digests, plain_settings, versions
from projected_grpo.training.learning import Learned, accumulate
from projected_grpo.training.policy import View
from projected_grpo.training.pool import read
from projected_grpo.training.records import of_learning, of_rollouts, of_run, of_vectors
from projected_grpo.training.report import Report
from projected_grpo.training.rollouts import Rollouts, collect
from projected_grpo.training.schedule import learning_rate
from projected_grpo.training.setting import lessons, make_policy_and_task
from projected_grpo.training.streams import number, stream
from projected_grpo.training.task import Task
from projected_grpo.training.teacher import Teacher
from projected_grpo.whole_files import READABLE, whole

PROBED = 1024  # prompts of the task of which a pool must have one
FLAT_STEPS = 5
BEFORE_ALL = -1  # no step: nothing of a log is kept
WARNS_AFTER = 0.25  # share of the steps; the gauges compare with what was learned off V, which is nothing at first

Told = Callable[[str, int, dict[str, Any]], object]


@dataclass(frozen=True)
class Seen:
    """What a step did, for whoever watches; nothing of it may be written to."""

    step: int  # 1 after the first
    rollouts: Rollouts
    learned: Learned


@dataclass(frozen=True)
class Refreshed:
    """A basis that was extracted on the way, before it was put to use."""

    step: int
    basis: Basis


class Trainer:
    """One run in one folder. Use `begin` or `resume`.

    Arguments:
        config: what decides the run.
        place: its folder; None for a run that leaves nothing behind.
        tell: is told of every event as it is logged: its name, the step, its values.
        watch: sees every step, and every basis that is extracted on the way.
        around: puts something around the task: a counter, or another oracle, to see that nothing depends on it.
    """

    def __init__(
        self,
        config: TrainConfig,
        place: Path | None,
        *,
        tell: Told | None = None,
        watch: Callable[[Seen | Refreshed], object] | None = None,
        around: Callable[[Task], Task] | None = None,
    ) -> None:
        if config.model.threads is not None:
            torch.set_num_threads(config.model.threads)
        self.config, self.place = absolute(config), place
        self._lock = folder.lock(place) if place is not None else None
        if place is not None:
            folder.sweep(place)
        self._tell, self._watch = tell, watch
        self.done = 0
        self._warned: list[str] = []
        self._flat = 0  # steps in a row in which nothing was to be learned
        self._looked: dict[str, Rates] | None = None
        self._log: LogWriter | None = None
        self._report: Report | None = None
        self._closing = ExitStack()
        try:
            if self._lock is not None:
                self._closing.enter_context(self._lock)
            self.policy, self.task = make_policy_and_task(self.config)
            self._closing.callback(self.task.close)
            self.task = around(self.task) if around is not None else self.task
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        config, seed = self.config, self.config.run.seed
        self._pool = self._teacher()
        self.pairs, self.held_out = chosen_pairs(self.task, config.basis, seed=seed) if config.extracts else ([], [])
        self._evaluation = self.task.evaluation(config.evaluation.evaluation_prompts)
        longest = max(len(prompt.ids) for prompt in self._evaluation) + config.grpo.max_new_tokens
        if self.policy.positions is not None and longest > self.policy.positions:
            raise SettingError(
                f"Prompts and max_new_tokens {config.grpo.max_new_tokens} make up to {longest} tokens, and the model "
                f"has {self.policy.positions} positions; lower max_new_tokens."
            )
        self._inputs = digests(config, self.policy)
        saved = self._checkpoint()
        if saved is None:
            extracted = self._extracted(first_basis) if self.config.extracts else None
            self.optimizer = self._optimizer(extracted.basis if extracted else placeholder(self.policy))
            self._open_log(BEFORE_ALL)
            self._say(
                "run", of_run(config, self.policy.vectors, extracted, len(self.pairs), versions(self.optimizer.loops))
            )
            if extracted and self.place is not None:
                extracted.basis.save(self.place / folder.BASIS)
            self._save()
        else:
            check_same(saved.extra, config, self._inputs)
            checkpoints.restore(self.policy.vectors, saved.vectors)
            self.optimizer = self._optimizer(placeholder(self.policy))
            self.optimizer.load_state_dict(saved.optimizer)
            self.done, self._warned, self._flat = saved.step, saved.extra["warned"], saved.extra["flat"]
            now = versions(self.optimizer.loops)
            if self._open_log(self.done):  # a new one, for the old one is gone
                self._say("run", of_run(config, self.policy.vectors, None, 0, now))
            self._say("resumed", {"versions": now})
            passed_over = [f"{damaged}; the checkpoint before it was taken." for damaged in saved.skipped]
            for text in [*passed_over, *changes(saved.extra["versions"], now)]:
                self._say("warning", {"text": text})

    @classmethod
    def begin(cls, config: TrainConfig, **watchers: Any) -> "Trainer":
        """A new run in a new folder, of which nothing is left if it cannot begin.

        Raises RunExistsError if the folder is not empty.
        """
        with folder.begun(absolute(config)) as place:
            return cls(config, place, **watchers)

    @classmethod
    def resume(cls, place: Path, **watchers: Any) -> "Trainer":
        """Goes on with the run in a folder, from its newest checkpoint.

        Raises CheckpointError if there is none although steps were made, or if the run's settings or inputs are not
        what they were, and RunBusyError if another process is at it.
        """
        return cls(folder.reopened(place), place, **watchers)

    def run(self, until: int | None = None, *, stop: Callable[[], bool] = lambda: False) -> Report | None:
        """Trains to the end, or until a step is done; None if it was stopped before the end.

        stop: asked after each step; where it says so the run is checkpointed and left.
        """
        last = min(self.config.grpo.steps, self.config.grpo.steps if until is None else until)
        while self.done < last:
            self.step()
            stopping = stop() and self.done < self.config.grpo.steps
            if self.done % self.config.run.checkpoint_every == 0 or self.done == last or stopping:
                self._save()
            if stopping:
                return None
        if self.done == self.config.grpo.steps and self._report is None:
            self._report = self._finish()
        return self._report

    def step(self) -> None:
        """One optimizer step, and the evaluation and the refresh that are due with it."""
        step, config = self.done, self.config
        if config.basis.refresh_every and step and step % config.basis.refresh_every == 0 and config.extracts:
            self.refresh()
        began = time.perf_counter()
        torch.manual_seed(number(config.run.seed, "torch", step))  # for whatever draws without being asked to
        rollouts = collect(
            self.policy, self.task, config.grpo, config.teacher, self._pool, seed=config.run.seed, step=step
        )
        sampled = time.perf_counter()
        learned = accumulate(self.policy, rollouts, config.grpo)
        rate = learning_rate(
            step, lr=config.grpo.lr, steps=config.grpo.steps, warmup=config.grpo.warmup, schedule=config.grpo.schedule
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        learned_at = time.perf_counter()
        self.optimizer.step()
        self.done += 1
        values = {
            **of_rollouts(rollouts, config.grpo.group), **of_learning(learned, self.optimizer, config),
            **of_vectors(self.policy.vectors, config), "lr": rate, "seconds_rollouts": sampled - began,
            "seconds_learning": learned_at - sampled, "seconds_step": time.perf_counter() - began,
        }  # fmt: skip
        self._say("step", values)
        self._warn()
        self._flat = self._flat + 1 if values["flat_groups"] == 1 else 0
        if self._flat == FLAT_STEPS:
            self._say("warning", {"text": f"In {FLAT_STEPS} steps every group had equal rewards: nothing is learned."})
        if self._watch is not None:
            self._watch(Seen(self.done, rollouts, learned))
        every = config.evaluation.evaluate_every
        if (every and self.done % every == 0) or self.done == config.grpo.steps:
            self._looked = self.look()

    def _warn(self) -> None:
        """Says once of each drift gauge that it is above its limit; before much is learned they say little."""
        routing, early = self.config.routing, self.done <= WARNS_AFTER * self.config.grpo.steps
        if early or routing.intervention == "none" or routing.space == "displacement":
            return  # what was learned is split as a whole there, so that noise does not add up
        for warning in self.optimizer.diagnostics().warnings:
            gauge = warning.split()[0]
            if gauge not in self._warned:
                self._warned = [*self._warned, gauge]
                self._say("warning", {"text": warning})

    def refresh(self) -> None:
        """Extracts V again from the model as it would be deployed.

        A V that has too little of the one before, or whose axes point the other way, is refused, and that one kept.
        """
        began = time.perf_counter()
        try:
            extracted = self._extracted()
        except EmptyBasisError:  # the pairs differ in nothing any more
            self._say("refresh", {"accepted": False, "basis_axes": 0}, step=self.done + 1)
            return
        basis, separation = extracted.basis, extracted.separation
        if self._watch is not None:
            self._watch(Refreshed(self.done, basis))
        shared, way = mean_overlap(basis, self.optimizer.basis), same_way(basis, self.optimizer.basis)
        accepted = shared >= self.config.basis.least_overlap and way > 0
        if accepted:
            self.optimizer.refresh(basis)
        self._say(
            "refresh",
            {
                "overlap": shared, "same_way": way, "accepted": accepted, "basis_axes": sum(basis.k.values()),
                "basis_separation": separation.right if separation else None, "seconds": time.perf_counter() - began,
                "basis_held_out": separation.pairs if separation else None,
            },
            step=self.done + 1,  # the step that it is for: what is logged of a step is logged before its checkpoint
        )  # fmt: skip

    def look(self) -> dict[str, Rates]:
        """Evaluates the model as trained and as deployed, on the held-out prompts."""
        began = time.perf_counter()
        views = self._views()
        values: dict[str, Any] = {
            "prompts": len(self._evaluation), "seconds": time.perf_counter() - began,
            "prompts_by_mode": dict(Counter(prompt.mode.value for prompt in self._evaluation)),
        }  # fmt: skip
        for view, own in views.items():
            values |= {f"hack_{view}": own.hack, f"solve_{view}": own.solve, f"format_{view}": own.format}
            values[f"hack_by_mode_{view}"] = own.hack_by_mode
        self._say("evaluation", values)
        return views

    def _views(self) -> dict[str, Rates]:
        trained = self._rates("trained")
        # Without a quarantine both views are one model.
        return {"trained": trained, "deployed": self._rates("deployed") if self._routes else trained}

    def close(self) -> None:
        """Ends the processes that grade, and closes the log."""
        self._closing.close()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _routes(self) -> bool:
        return self.config.routing.intervention == "route"

    def _rates(self, view: View) -> Rates:
        return evaluate(
            self.policy, self.task, self._evaluation, self.config.grpo, view=view, seed=self.config.run.seed
        )

    def _finish(self) -> Report:
        """The final report, and everything that outlives the run."""
        views: dict[str, Rates] = {"base": self._rates("base")}
        views |= self._looked or self._views()
        config, routing = self.config, self.config.routing
        if routing.intervention == "none" and config.extracts and not routing.rule.remembers:
            with projected(self.policy, self.optimizer.basis, routing.rule):
                views["posthoc"] = self._rates("deployed")
        if config.extracts:
            with off_the_axes(self.policy, self.optimizer.basis):
                views["off_axes"] = self._rates("deployed")
        report = Report(routing.intervention, self.done, config.run.seed, views)
        self._say("final", {"report": report.plain()})
        if self.place is not None:
            vectors = checkpoints.named(self.policy.vectors)
            with whole(self.place / folder.VECTORS) as partial:
                save_file({name: v.cpu().contiguous() for name, v in vectors.items()}, partial)
                partial.chmod(READABLE)
            shutil.rmtree(self.place / folder.DEPLOYED, ignore_errors=True)
            save_deployed(self.policy.model, self.place / folder.DEPLOYED)
            folder.write_json(self.place / folder.REPORT, report.plain())
        return report

    def _optimizer(self, basis: Basis) -> RoutedOptimizer:
        config, pairs = self.config, self.policy.vectors
        roles = ("deployed", "quarantine") if self._routes else ("deployed",)
        parameters = [v for role in roles for pair in pairs.values() if (v := getattr(pair, role)) is not None]
        base = torch.optim.AdamW(
            parameters, lr=config.grpo.lr, betas=config.grpo.betas, weight_decay=config.grpo.weight_decay, fused=True
        )
        return RoutedOptimizer(
            base, self.policy.model, basis, intervention=config.routing.intervention, space=config.routing.space,
            clip=config.routing.clip, max_norm=config.grpo.max_norm, rule=self.config.routing.rule,
            retained=config.routing.retained,
        )  # fmt: skip

    def _extracted(self, by: Callable[..., Extracted] = extract) -> Extracted:
        return by(self.policy, self.pairs, self.held_out, self.config.basis, seed=self.config.run.seed)

    def _checkpoint(self) -> checkpoints.Checkpoint | None:
        """The newest; none for a run that has not come to its first step."""
        if self.place is None:
            return None
        saved = checkpoints.newest(self.place / folder.CHECKPOINTS)
        log = self.place / folder.LOG
        if saved is None and log.exists() and any(entry.event == "step" for entry in read_log(log)):
            raise CheckpointError(f"{self.place} has made steps, and its checkpoints are gone; begin a new run.")
        return saved

    def _teacher(self) -> Teacher | None:
        config, seed = self.config.teacher, self.config.run.seed
        if config.pool is not None:
            pool = read(config.pool)
            pool.check_tokens(self.policy.vocabulary)
            if not any(prompt.key in pool for prompt in self.task.draw(PROBED, stream(seed, "pool"))):
                raise PoolError(f"{config.pool} has none of this task's prompts; sample one from a run of this task.")
            return pool
        return lessons(self.task, seed=self.config.run.seed) if config.teach_pairs else None

    def _save(self) -> None:
        if self.place is not None:
            began = time.perf_counter()
            saved = checkpoints.save(
                self.place / folder.CHECKPOINTS, self.done, self.policy.vectors, self.optimizer.state_dict(),
                {"warned": self._warned, "flat": self._flat, "config": plain_settings(self.config),
                 "inputs": self._inputs, "versions": versions(self.optimizer.loops)},
            )  # fmt: skip
            self._say("checkpoint", {"folder": saved.name, "seconds": time.perf_counter() - began})

    def _open_log(self, step: int) -> bool:
        """Opens what there is up to a step, or a new one, and says whether it is new."""
        if self.place is None or not self.config.run.log:
            return False
        path = self.place / folder.LOG
        truncate(path, step)
        new = not path.exists() or not path.stat().st_size
        self._log = self._closing.enter_context(LogWriter(path, arm=self.config.routing.intervention))
        return new

    def _say(self, event: str, values: dict[str, Any], *, step: int | None = None) -> None:
        at = self.done if step is None else step
        if self._log is not None:
            self._log.write(event, step=at, **values)
        if self._tell is not None:
            self._tell(event, at, values)
