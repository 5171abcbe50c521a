"""The specification's loop as a trainer that can be asked for anything: a few steps of its tiny transformer.

It has no teacher and no schedule, and never refreshes its basis; what it has is what reference.loop has.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from invariants.contracts import ContrastivePair, Extraction, FirstStep, TrainRequest, TrainResult, TrainSetting
from reference import AdamW, Routing, extraction, global_norm, initial, routed_step, split, task
from reference.adapter import adapt, viewed_as

SETTING = TrainSetting()
Vectors = dict[str, Tensor]  # module -> (r,)


@cache
def config(seed: int) -> Any:
    """A short run of the loop; the model and its basis are the same for every seed."""
    from reference.loop import LoopConfig  # imports transformers, which nothing but a run needs

    return LoopConfig(group=4, prompts=3, pairs=8, k=4, seed=seed, routing=Routing(optimizer=AdamW(lr=0.03)))


@cache
def basis() -> Vectors:
    """Extracted once: what is checked here is the run."""
    from reference import loop

    model = loop.tiny_model(MODEL)
    return loop.hack_basis(model, adapt(model), config(MODEL))


@cache
def extraction_shown() -> Extraction:
    """What that basis was made of."""
    from reference import loop

    made_with = config(MODEL)
    drawn = task.contrastive_pairs(made_with.pairs, torch.Generator().manual_seed(MODEL + 1))
    model = loop.tiny_model(MODEL)
    vectors = {name: module.deployed for name, module in adapt(model).items()}
    return Extraction(
        pairs=[
            ContrastivePair(prompt=prompt[0], hack=up_to_the_end(hack[0]), clean=up_to_the_end(clean[0]))
            for prompt, hack, clean in drawn
        ],
        basis=basis(), k=made_with.k, global_floor=made_with.noise_floor,
        deployed={name: torch.zeros_like(p) for name, p in vectors.items()}, vectors=vectors,
        logits=lambda tokens: model(tokens[None]).logits[0], computed_in=torch.float32,  # as its norms are
    )  # fmt: skip


def up_to_the_end(completion: Tensor) -> Tensor:
    """(T,), up to its first end of sequence and with it."""
    ends = completion == task.END
    return completion[: int(ends.int().argmax()) + 1 if ends.any() else len(completion)]


MODEL = 1  # the seed of the model, and of its basis


class Run:
    """reference.loop's step, with a state that can be saved and everything that a request can ask for."""

    def __init__(self, request: TrainRequest) -> None:
        from reference import loop

        self.loop, self.request, self.config = loop, request, config(request.seed)
        self.model = loop.tiny_model(MODEL)
        self.adapted = adapt(self.model)
        self.vectors = {name: module.deployed for name, module in self.adapted.items()}
        self.routing = replace(self.config.routing, intervention=request.intervention)
        self.state = initial(self.routing, {name: p.detach().clone() for name, p in self.vectors.items()})
        self.generator = torch.Generator().manual_seed(request.seed)
        self.step, self.evaluations, self.records = 0, 0, 0
        self.oracle: list[bool] = []
        self.removed: list[float] = []
        self.first: FirstStep | None = None

    def result(self) -> TrainResult:
        """Runs on from where it is."""
        began, request = self.step, self.request
        while self.step < (request.steps if request.stop_after is None else request.stop_after):
            self.train_step()
        if request.stop_after is not None:
            saved = {"state": self.state, "generator": self.generator.get_state(), "step": self.step}
            torch.save(saved, request.folder / "checkpoint.pt")
        return TrainResult(
            deployed=self.state.deployed, quarantine=self.state.quarantine, steps=self.step - began,
            oracle=self.oracle, evaluations=self.evaluations, records=self.records, removed=self.removed,
            first=self.first, extractions=[] if request.resume else [extraction_shown()],
        )  # fmt: skip

    def load(self) -> None:
        """Takes up what the stopped run has left."""
        saved = torch.load(self.request.folder / "checkpoint.pt", weights_only=False)
        self.state, self.step = saved["state"], saved["step"]
        self.generator.set_state(saved["generator"])
        self.show()

    @torch.no_grad()
    def show(self) -> None:
        """Puts the state into the model."""
        for name, module in self.adapted.items():
            module.deployed.copy_(self.state.deployed[name])
            module.quarantine.copy_(self.state.quarantine[name])

    def train_step(self) -> None:
        """One step of reference.loop.run."""
        g, batches = {name: torch.zeros_like(p) for name, p in self.vectors.items()}, []
        for _ in range(self.config.micro_batches):
            batch = self.loop.rollouts(self.model, self.config, self.generator)
            batches.append(batch)
            labels = task.solved(batch.completions)
            self.oracle += (~labels if self.request.permuted_oracle else labels).tolist()
            loss = partial(self.loop.policy_loss, self.model, self.adapted, self.config, batch)
            share = extraction.isolated_gradient(loss, self.vectors)
            g = {name: g[name] + share[name] for name in g}
        if self.step == 0:
            self.first = self.evidence(batches, g)
        if self.request.intervention != "none" or self.request.measure:
            parts = (split(gradient, basis()[name], self.routing.rule) for name, gradient in g.items())
            self.removed.append(float(global_norm(part.removed for part in parts)))
        self.state = routed_step(self.routing, self.state, g, basis())
        self.step += 1
        self.show()
        if self.request.evaluate:
            self.evaluations += 1
            with viewed_as("deployed", self.adapted):
                self.loop.rollouts(self.model, self.config, torch.Generator().manual_seed(self.request.seed + 1))
        if self.request.log:
            self.records += 1
            record = {"step": self.step, "rates": [batch.rates for batch in batches]}
            with (self.request.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")

    def evidence(self, batches: list[Any], g: Mapping[str, Tensor]) -> FirstStep:
        """What the first step was made of; the model that shows it is a fresh one."""
        model = self.loop.tiny_model(MODEL)
        vectors = {name: module.deployed for name, module in adapt(model).items()}
        prompts, completions = (torch.cat([getattr(b, part) for b in batches]) for part in ("prompt", "completions"))
        return FirstStep(
            prompts=list(prompts), completions=[up_to_the_end(c) for c in completions],
            rewards=torch.cat([b.rewards for b in batches]).view(-1, self.config.group),
            max_new_tokens=task.NEW_TOKENS, gradient=dict(g), vectors=vectors,
            logits=lambda tokens: model(tokens[None]).logits[0], computed_in=torch.float32,  # as its norms are
        )  # fmt: skip


def train(request: TrainRequest) -> TrainResult:
    """One run, or the rest of one."""
    run = Run(request)
    if request.resume:
        run.load()
    return run.result()
