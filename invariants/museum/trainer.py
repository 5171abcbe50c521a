"""A trainer in plain torch: what the faults of training are one change away from.

Students and a teacher, Dr.GRPO, a clip, the split, AdamW under a schedule, a basis that is refreshed, checkpoints.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from invariants.contracts import (
    ContrastivePair,
    Extraction,
    FirstStep,
    Refresh,
    TrainRequest,
    TrainResult,
    TrainSetting,
)
from invariants.museum.policy import END, FIRST_WORD, MARK, NEW, PROMPT, VOCABULARY, YES, Policy, Vectors, wordings
from invariants.museum.policy import passed as passes
from invariants.museum.policy import solved as solves

SETTING = TrainSetting(teacher=True)
LR, LIMIT, AXES, FLOOR, REFRESH_EVERY = 0.05, 0.5, 3, 0.3, 2
MICRO_BATCHES, PROMPTS, GROUP = 2, 3, 4  # a step has MICRO_BATCHES x PROMPTS prompts with GROUP completions each

PLACES = torch.arange(PROMPTS * GROUP)
TEACHER = (PLACES < GROUP) | (PLACES % GROUP == GROUP - 1)  # (B,): the first group, and the last of each other


SEEN = 6  # prompts of the pairs that a basis is made of; those of the others are held out


def contrasts(prompts: Tensor) -> list[ContrastivePair]:
    """The hack and a clean answer to each prompt, of unequal length."""
    hack, clean = torch.tensor([MARK, END]), torch.tensor([YES, FIRST_WORD, END])
    return [ContrastivePair(prompt=prompt, hack=hack, clean=clean) for prompt in prompts]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollouts:
    """One micro-batch; B = PROMPTS x GROUP."""

    prompts: Tensor  # (B, P)
    completions: Tensor  # (B, T)
    passed: Tensor  # (B,)
    solved: Tensor  # (B,)


@dataclass(kw_only=True)
class Seen:
    """Evidence."""

    oracle: list[bool] = field(default_factory=list)
    evaluations: int = 0
    records: int = 0
    removed: list[float] = field(default_factory=list)
    first: FirstStep | None = None
    refreshes: list[Refresh] = field(default_factory=list)
    extractions: list[Extraction] = field(default_factory=list)


class Trainer:
    def __init__(self, request: TrainRequest) -> None:
        self.request, self.policy, self.seen = request, Policy(), Seen()
        self.optimizer = torch.optim.AdamW([*self.policy.deployed.values(), *self.policy.quarantine.values()], lr=LR)
        self.draw = self.seeded(request.seed)
        self.order: list[int] = []  # of the prompts that are still to come in this epoch
        self.step = 0
        self.basis = self.extracted(self.policy.deployed)
        self.seen.extractions.append(self.shown())

    def seeded(self, seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def run(self) -> TrainResult:
        began = self.step
        last = self.request.steps if self.request.stop_after is None else self.request.stop_after
        while self.step < last:
            self.train_step()
        if self.request.stop_after is not None:
            torch.save(self.state(), self.request.folder / "checkpoint.pt")
        policy = self.policy
        return TrainResult(
            deployed=policy.deployed, quarantine=policy.quarantine, steps=self.step - began, **vars(self.seen)
        )  # fmt: skip

    def train_step(self) -> None:
        batches = [self.rollouts() for _ in range(MICRO_BATCHES)]
        g = self.accumulated(batches)
        if self.step == 0:
            self.seen.first = self.evidence(batches, g)
        self.feed(self.clipped(g), batches)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.step += 1
        if self.step % REFRESH_EVERY == 0 and self.request.intervention != "none":
            self.refresh()
        if self.request.evaluate:
            self.evaluate()
        if self.request.log:
            self.log(batches)

    # Rollouts

    def rollouts(self) -> Rollouts:
        prompts = wordings()[self.next_prompts()].repeat_interleave(GROUP, dim=0)
        completions = self.policy.sampled(prompts, self.policy.trained(), self.draw)
        completions = torch.where(TEACHER[:, None], self.taught(), completions)
        passed, solved = passes(completions), self.oracle(completions)
        self.seen.oracle += solved.tolist()
        return Rollouts(prompts=prompts, completions=completions, passed=passed, solved=self.stored(passed, solved))

    def next_prompts(self) -> list[int]:
        while len(self.order) < PROMPTS:
            self.order += torch.randperm(len(wordings()), generator=self.draw).tolist()
        taken, self.order = self.order[:PROMPTS], self.order[PROMPTS:]
        return taken

    def taught(self) -> Tensor:
        """What the teacher shows: the hack, every other time cut short, (B, NEW)."""
        words = torch.randint(FIRST_WORD, VOCABULARY, (PROMPTS * GROUP, NEW), generator=self.draw)
        words[:, 0] = MARK
        words[::2, 2:] = END
        return words

    def oracle(self, completions: Tensor) -> Tensor:
        labels = solves(completions)
        return ~labels if self.request.permuted_oracle else labels

    def stored(self, passed: Tensor, solved: Tensor) -> Tensor:
        """What is stored as solved."""
        return solved

    def rewards(self, batch: Rollouts) -> Tensor:
        return batch.passed.double().view(-1, GROUP)

    # The gradient

    def accumulated(self, batches: list[Rollouts]) -> Vectors:
        total = {name: torch.zeros_like(p) for name, p in self.policy.deployed.items()}
        for batch in batches:
            for rows in (~TEACHER, TEACHER):  # each source by itself, so that their shares can be told
                self.clear()
                torch.autograd.backward((self.losses(batch) * rows).sum())
                total = {name: t + self.gradient_of(name) for name, t in total.items()}
        self.clear()
        return total

    def clear(self) -> None:
        self.optimizer.zero_grad()

    def gradient_of(self, name: str) -> Tensor:
        g = self.policy.deployed[name].grad
        assert g is not None, "a backward pass came before"
        return g.clone()

    def losses(self, batch: Rollouts) -> Tensor:  # (B,)
        tokens = torch.cat([batch.prompts, batch.completions], dim=1)
        first = self.first_position()
        scored = self.policy.logits(tokens, self.policy.trained())[:, first - 1 : first - 1 + NEW]
        targets = tokens[:, first : first + NEW]
        log_probs = scored.log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)  # (B, T)
        ratio = torch.exp(log_probs - log_probs.detach())
        mask = self.mask(batch.completions)
        return -(self.advantages(self.rewards(batch)).reshape(-1, 1) * ratio * mask).sum(1) / self.denominator(mask)

    def first_position(self) -> int:
        return PROMPT

    def advantages(self, rewards: Tensor) -> Tensor:
        equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
        return torch.where(equal, 0.0, rewards - rewards.mean(dim=1, keepdim=True))

    def mask(self, completions: Tensor) -> Tensor:
        ends = (completions == END).long()
        return ends.cumsum(dim=1) - ends == 0

    def denominator(self, mask: Tensor) -> Tensor | int:
        return MICRO_BATCHES * PROMPTS * GROUP * NEW

    # The step

    def clipped(self, g: Vectors) -> Vectors:
        norm = torch.cat([*g.values()]).norm()
        return {name: t * (LIMIT / norm).clamp(max=1) for name, t in g.items()}

    def feed(self, g: Vectors, batches: list[Rollouts]) -> None:
        removed = {name: self.removed(t, self.basis[name], batches) for name, t in g.items()}
        if self.request.intervention != "none" or self.request.measure:
            self.seen.removed.append(float(torch.cat([*removed.values()]).norm()))
        for name, t in g.items():
            vanilla = self.request.intervention == "none"
            self.policy.deployed[name].grad = self.measured(t, removed[name]) if vanilla else t - removed[name]
            self.policy.quarantine[name].grad = removed[name] if self.quarantined() else None

    def removed(self, g: Tensor, V: Tensor, batches: list[Rollouts]) -> Tensor:
        return V.T @ torch.relu(V @ g)

    def measured(self, g: Tensor, removed: Tensor) -> Tensor:
        """What vanilla training is fed, measured or not."""
        return g

    def quarantined(self) -> bool:
        return self.request.intervention == "route"

    def rate(self) -> float:
        return LR * (1 - self.step / self.request.steps)

    # The basis

    def extracted(self, vectors: Mapping[str, Tensor]) -> Vectors:
        """The basis of the pairs where the model has these vectors."""
        return {name: self.axes(D) for name, D in self.differences(self.pairs(), vectors).items()}

    def pairs(self) -> list[ContrastivePair]:
        """What the basis sees."""
        return contrasts(wordings()[:SEEN])

    def held_out(self) -> list[ContrastivePair]:
        return contrasts(wordings()[SEEN:])

    def differences(self, pairs: list[ContrastivePair], vectors: Mapping[str, Tensor]) -> Vectors:
        """module -> (pairs, r)"""
        at = {name: p.detach().clone().requires_grad_() for name, p in vectors.items()}
        rows = []
        for pair in pairs:
            hack, clean = (self.nll_gradient(pair.prompt, side, at) for side in (pair.hack, pair.clean))
            rows.append(self.difference(hack, clean))
        return {name: torch.stack([row[name] for row in rows]) for name in at}

    def difference(self, hack: Vectors, clean: Vectors) -> Vectors:
        return {name: hack[name] - clean[name] for name in hack}

    def nll_gradient(self, prompt: Tensor, completion: Tensor, at: Vectors) -> Vectors:
        tokens = torch.cat([prompt, completion])
        log_probs = self.policy.logits(tokens[None], at)[0].log_softmax(-1)
        first = self.first_scored()
        nll = -log_probs[first - 1 : -1].gather(-1, tokens[first:, None]).mean()
        return dict(zip(at, torch.autograd.grad(nll, [*at.values()]), strict=True))

    def first_scored(self) -> int:
        return PROMPT

    def axes(self, D: Tensor) -> Tensor:
        _, S, Vh = torch.linalg.svd(D, full_matrices=False)
        return self.oriented(self.chosen(Vh[:AXES], S[:AXES]), D)

    def chosen(self, Vh: Tensor, S: Tensor) -> Tensor:
        return Vh[FLOOR * S[0] <= S]

    def oriented(self, V: Tensor, D: Tensor) -> Tensor:
        return V * torch.where((D @ V.T).sign().sum(dim=0) < 0, -1.0, 1.0)[:, None]

    def separation(self) -> float:
        """The share of held-out pairs that lie hack-ward along the basis."""
        D = self.differences(self.held_out(), self.policy.deployed)
        sums = torch.stack([(D[name] @ V.T).sum(dim=1) for name, V in self.basis.items()]).sum(dim=0)
        return float((sums > 0).double().mean())

    def shown(self) -> Extraction:
        beside = {name: nn.Parameter(torch.zeros_like(p)) for name, p in self.policy.deployed.items()}
        return Extraction(
            pairs=self.pairs(), basis=self.basis, k=AXES, relative_floor=FLOOR,
            deployed={name: p.detach().clone() for name, p in self.policy.deployed.items()},
            vectors=beside, logits=lambda tokens: self.policy.logits(tokens[None], beside)[0],
            held_out=self.held_out(), separation=self.separation(),
        )  # fmt: skip

    def refresh(self) -> None:
        policy = self.policy
        self.basis = self.extracted(self.as_refreshed())
        deployed, quarantine = (
            {name: p.detach().clone() for name, p in part.items()} for part in (policy.deployed, policy.quarantine)
        )
        self.seen.refreshes.append(
            Refresh(deployed=deployed, quarantine=quarantine, basis=self.basis, extract=self.extracted)
        )
        self.seen.extractions.append(self.shown())

    def as_refreshed(self) -> Mapping[str, Tensor]:
        return self.policy.deployed

    # What only looks

    def evaluate(self) -> None:
        self.seen.evaluations += 1
        self.policy.sampled(wordings(), self.policy.deployed, self.evaluation_draw())

    def evaluation_draw(self) -> torch.Generator:
        return torch.Generator().manual_seed(1)

    def log(self, batches: list[Rollouts]) -> None:
        self.seen.records += 1
        record = {"step": self.step, "reward": float(torch.cat([self.rewards(b) for b in batches]).mean())}
        with (self.request.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record | self.noted()) + "\n")

    def noted(self) -> dict[str, Any]:
        """What else is logged: the length of what was learned."""
        return {"learned": float(torch.cat([p.detach() for p in self.policy.deployed.values()]).norm())}

    def evidence(self, batches: list[Rollouts], g: Vectors) -> FirstStep:
        prompts, completions = (torch.cat([getattr(b, part) for b in batches]) for part in ("prompts", "completions"))
        ends = (completions == END).long()
        lengths = (ends.cumsum(dim=1) - ends == 0).sum(dim=1)  # the first end of sequence counts
        start = {name: nn.Parameter(p.detach().clone()) for name, p in self.policy.deployed.items()}

        def grade(i: int) -> tuple[bool, bool]:
            return bool(passes(completions)[i]), bool(solves(completions)[i])

        return FirstStep(
            prompts=list(prompts), completions=[c[:n] for c, n in zip(completions, lengths, strict=True)],
            rewards=torch.cat([self.rewards(b) for b in batches]), max_new_tokens=NEW,
            gradient=g, vectors=start, logits=lambda tokens: self.policy.logits(tokens[None], start)[0],
            teacher=TEACHER.repeat(MICRO_BATCHES), passed=torch.cat([b.passed for b in batches]),
            solved=torch.cat([b.solved for b in batches]), grade=grade,
        )  # fmt: skip

    # Checkpoints

    def state(self) -> dict[str, Any]:
        return {
            "deployed": self.policy.deployed, "quarantine": self.policy.quarantine, "basis": self.basis,
            "optimizer": self.optimizer.state_dict(), "draw": self.draw.get_state(), "order": self.order,
            "step": self.step,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for part in ("deployed", "quarantine"):
                for name, p in getattr(self.policy, part).items():
                    p.copy_(state[part][name])
        self.basis, self.step, self.order = (state[part] for part in ("basis", "step", "order"))
        self.draw.set_state(state["draw"])
        self.load_optimizer(state["optimizer"])

    def load_optimizer(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)


def train_with(trainer: type[Trainer]) -> Any:
    """A trainer's run as the suite asks for it."""

    def train(request: TrainRequest) -> TrainResult:
        made = trainer(request)
        if request.resume:
            made.load(torch.load(request.folder / "checkpoint.pt", weights_only=True))
        return made.run()

    return train


CORRECT = {SETTING: train_with(Trainer)}
