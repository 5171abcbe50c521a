"""What goes wrong in training: each broken trainer overrides one method."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from invariants.contracts import ContrastivePair
from invariants.museum.policy import END, NEW, PROMPT, Vectors
from invariants.museum.subjects import exhibit
from invariants.museum.trainer import GROUP, LR, PROMPTS, SETTING, TEACHER, Rollouts, Trainer, train_with
from invariants.subject import Subject


def broken_trainer(
    name: str, *, caught_by: str, bug: int | None = None, also: Mapping[str, str] | None = None
) -> Callable[[type[Trainer]], type[Trainer]]:
    """Puts a trainer on show."""

    def show(broken: type[Trainer]) -> type[Trainer]:
        exhibit(name, lambda n: Subject(name=n, train={SETTING: train_with(broken)}), caught_by=caught_by, bug=bug,
                also=also)  # fmt: skip
        return broken

    return show


@broken_trainer("a random state that nobody seeds", caught_by="training.reproducible")
class Unseeded(Trainer):
    def seeded(self, seed: int) -> torch.Generator:
        draw = torch.Generator()
        draw.seed()
        return draw


@broken_trainer("the oracle's label in the reward", caught_by="training.oracle_blind", bug=32)
class PaidByTheOracle(Trainer):
    def rewards(self, batch: Rollouts) -> Tensor:
        return super().rewards(batch) + batch.solved.double().view(-1, GROUP)


@broken_trainer("the oracle's label in the gate", caught_by="training.oracle_blind", bug=32)
class GateThatKnows(Trainer):
    def removed(self, g: Tensor, V: Tensor, batches: list[Rollouts]) -> Tensor:
        solved = torch.cat([batch.solved for batch in batches]).double().mean()
        return super().removed(g, V, batches) * (1 - solved)


@broken_trainer("evaluation draws from the training's random state", caught_by="training.evaluation_neutral", bug=34)
class EvaluationDraws(Trainer):
    def evaluation_draw(self) -> torch.Generator:
        return self.draw


@broken_trainer("the log shows a sample of its own", caught_by="training.logging_neutral")
class LogDraws(Trainer):
    def noted(self) -> dict[str, Any]:
        return {"sample": int(torch.randint(10, (), generator=self.draw))}


@broken_trainer("vanilla is fed what measuring has left", caught_by="training.measuring_neutral")
class MeasuredInPlace(Trainer):
    def measured(self, g: Tensor, removed: Tensor) -> Tensor:
        return g.sub_(removed) if self.request.measure else g


@broken_trainer("the schedule begins anew on resume", caught_by="training.resumes", bug=35)
class ScheduleRestarted(Trainer):
    resumed_at = 0

    def load(self, state: dict[str, Any]) -> None:
        super().load(state)
        self.resumed_at = self.step

    def rate(self) -> float:
        return LR * (1 - (self.step - self.resumed_at) / self.request.steps)


@broken_trainer("the order of the data begins anew on resume", caught_by="training.resumes", bug=35)
class OrderRestarted(Trainer):
    def load(self, state: dict[str, Any]) -> None:
        super().load(state | {"order": []})


@broken_trainer("second moments begin anew on resume", caught_by="training.resumes", bug=35)
class MomentsRestarted(Trainer):
    def load_optimizer(self, state: dict[str, Any]) -> None:
        super().load_optimizer(state)
        for moments in self.optimizer.state.values():
            moments["exp_avg_sq"].zero_()


@broken_trainer("the random state begins anew on resume", caught_by="training.resumes")
class DrawsRestarted(Trainer):
    def load(self, state: dict[str, Any]) -> None:
        super().load(state | {"draw": self.draw.get_state()})


@broken_trainer("erasing keeps what it removes", caught_by="training.quarantine_moves_iff_routed")
class ErasingKeeps(Trainer):
    def quarantined(self) -> bool:
        return self.request.intervention != "none"


@broken_trainer(
    "a run whose buffer is not cleared between student and teacher",
    caught_by="training.step_gradient",
    bug=21,
    also={"training.resumes": "what was left in the buffer is in no checkpoint"},
)
class BufferNotCleared(Trainer):
    def clear(self) -> None:
        pass


@broken_trainer("a run with advantages over the standard deviation", caught_by="training.step_gradient", bug=22)
class OverStandardDeviation(Trainer):
    def advantages(self, rewards: Tensor) -> Tensor:
        return super().advantages(rewards) / (rewards.std(dim=1, keepdim=True) + 1e-4)


@broken_trainer("a run whose loss is over the length of completions", caught_by="training.step_gradient", bug=22)
class OverLength(Trainer):
    def denominator(self, mask: Tensor) -> Tensor | int:
        return super().denominator(mask) * mask.sum(dim=1) / NEW


@broken_trainer("a run whose padding is masked by its id", caught_by="training.step_gradient", bug=23)
class MaskedById(Trainer):
    def mask(self, completions: Tensor) -> Tensor:
        return completions != END


@broken_trainer(
    "a run that divides zero by zero for equal rewards", caught_by="training.zero_variance", bug=24,
    also=dict.fromkeys(
        (
            *(f"training.{name}" for name in (
                "reproducible", "oracle_blind", "evaluation_neutral", "logging_neutral", "measuring_neutral", "resumes",
                "quarantine_moves_iff_routed", "refresh_ablates",
            )),
            *(f"extraction.run_{name}" for name in ("orthonormal", "span", "orientation", "floor", "separation")),
        ),
        "a policy of NaN cannot be sampled, and the run ends in an error",
    ),
)  # fmt: skip
class ZeroOverZero(Trainer):
    def advantages(self, rewards: Tensor) -> Tensor:
        return super().advantages(rewards) / rewards.std(dim=1, keepdim=True)


@broken_trainer("a run that counts the prompts of a micro-batch", caught_by="training.step_gradient", bug=25)
class PromptsOfTheMicroBatch(Trainer):
    def denominator(self, mask: Tensor) -> Tensor | int:
        return PROMPTS * GROUP * NEW


@broken_trainer("a run that trains on the last prompt token", caught_by="training.step_gradient", bug=26)
class LastPromptToken(Trainer):
    def first_position(self) -> int:
        return PROMPT - 1


@broken_trainer("a teacher's grade stored as the truth", caught_by="training.two_grades", bug=33)
class TeacherBelieved(Trainer):
    def stored(self, passed: Tensor, solved: Tensor) -> Tensor:
        return torch.where(TEACHER, passed, solved)


@broken_trainer(
    "a run that refreshes through its quarantine", caught_by="training.refresh_ablates", bug=28,
    also={"extraction.run_span": "its axes are those of the model as it trains"},
)  # fmt: skip
class RefreshedLive(Trainer):
    def as_refreshed(self) -> Vectors:
        return self.policy.trained()


@broken_trainer("a run whose last axis is its first one again", caught_by="extraction.run_orthonormal", bug=7)
class FirstAxisAgain(Trainer):
    def chosen(self, Vh: Tensor, S: Tensor) -> Tensor:
        V = super().chosen(Vh, S)
        return torch.cat([V[:-1], V[:1]])


@broken_trainer(
    "a run whose clean gradients stand on the hack's", caught_by="extraction.run_span", bug=27,
    also={
        "extraction.run_orientation": "the clean gradients alone decide the vote",
        "extraction.run_floor": "the singular values are those of the clean gradients",
        "extraction.run_separation": "the held-out pairs are told apart by their clean gradients alone",
    },
)  # fmt: skip
class CleanOnTopOfHack(Trainer):
    def difference(self, hack: Vectors, clean: Vectors) -> Vectors:
        return super().difference(hack, {name: g + hack[name] for name, g in clean.items()})


@broken_trainer(
    "a run whose pairs are scored on a prompt token too", caught_by="extraction.run_span", bug=26,
    also={"extraction.run_orientation": "the majority is that of other gradients"},
)  # fmt: skip
class PromptTokenInThePairs(Trainer):
    def first_scored(self) -> int:
        return PROMPT - 1


@broken_trainer("a run whose axes keep the signs of the decomposition", caught_by="extraction.run_orientation")
class NotOriented(Trainer):
    def oriented(self, V: Tensor, D: Tensor) -> Tensor:
        return V


@broken_trainer("a run whose floor compares squares", caught_by="extraction.run_floor")
class SquaresAtTheFloor(Trainer):
    def chosen(self, Vh: Tensor, S: Tensor) -> Tensor:
        return super().chosen(Vh, S**2)


@broken_trainer("a run whose basis is held against pairs that it has seen", caught_by="extraction.run_separation")
class HeldAgainstTheSeen(Trainer):
    def held_out(self) -> list[ContrastivePair]:
        return self.pairs()[:3]


@broken_trainer("a run that counts axes where it should count pairs", caught_by="extraction.run_separation")
class AxesCounted(Trainer):
    def separation(self) -> float:
        D = self.differences(self.held_out(), self.policy.deployed)
        return float(torch.cat([D[name] @ V.T for name, V in self.basis.items()], dim=1).gt(0).double().mean())
