"""RoutedOptimizer inside transformers' Trainer: accumulation, schedule, the Trainer's own clip, resumption, export.

The Trainer clips what has accumulated before it calls the optimizer, so a RoutedOptimizer without a max_norm of its own
then follows the policy `before`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import Trainer, TrainingArguments

import reference
from invariants.cases import orthonormal_rows
from projected_grpo.adapter import SVDRoutingConfig, ablate_quarantine, export_deployed, fingerprints, routed_vectors
from projected_grpo.basis import Basis
from projected_grpo.optimizer import RoutedOptimizer
from reference.loop import tiny_model
from reference.task import VOCABULARY

Vectors = dict[str, Tensor]  # module name -> (r,)
Batch = list[dict[str, Tensor]]  # the micro-batches of one step

SPACES = ["gradient", "update", "displacement"]
STEPS, ACCUMULATION, BATCH, LENGTH = 6, 2, 2, 8
LIMIT = 0.45  # of the Trainer's clip; the gradients are between 0.43 and 0.91 long, so it fires on some steps
SPECIFIED = reference.AdamW(lr=0.02, weight_decay=0.1)


def schedule(step: int) -> float:
    """Warm-up, then linear decay: no two of the first steps have the same learning rate."""
    return (step + 1) / 3 if step < 2 else 1 - 0.1 * (step - 2)


def dataset() -> list[dict[str, Tensor]]:
    """Completions of 1 to 7 tokens, so that the micro-batches of a step differ in how much they count."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for i in range(24):
        tokens = torch.randint(VOCABULARY, (LENGTH,), generator=generator)
        labels = tokens.clone()
        labels[: 1 + i % 7] = -100
        rows.append({"input_ids": tokens, "labels": labels})
    return rows


def loss_of(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int) -> Tensor:
    """Negative log-likelihood per token of the whole step, in the model's own dtype; ()."""
    logits = outputs.logits[:, :-1].flatten(0, 1)  # (B * (T - 1), vocabulary)
    return cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100, reduction="sum") / num_items_in_batch


def adapted(dtype: torch.dtype, *, quarantine: bool = True) -> PeftModel:
    return get_peft_model(tiny_model(0).to(dtype), SVDRoutingConfig(quarantine=quarantine))


def basis_of(model: nn.Module) -> Basis:
    """Two random axes for every module but the first layer's MLP, which the basis doesn't name."""
    generator = torch.Generator().manual_seed(1)
    rows = {
        name: orthonormal_rows(2, pair.deployed.numel(), generator).to(pair.deployed.dtype)
        for name, pair in routed_vectors(model).items()
        if "layers.0.mlp" not in name
    }
    return Basis(rows, fingerprints={name: fingerprints(model)[name] for name in rows})


def deployed(model: nn.Module) -> Vectors:
    return {name: pair.deployed.detach().clone() for name, pair in routed_vectors(model).items()}


def quarantined(model: nn.Module) -> Vectors:
    pairs = routed_vectors(model).items()
    return {name: pair.quarantine.detach().clone() for name, pair in pairs if pair.quarantine is not None}


def same_bits(ours: Vectors, theirs: Vectors) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def relative(ours: Vectors, theirs: Vectors) -> float:
    """Largest difference over all modules, relative to the largest entry."""
    assert ours.keys() == theirs.keys()
    size = max(float(x.abs().max()) for x in theirs.values())
    return max(float((ours[name] - x).abs().max()) for name, x in theirs.items()) / (size or 1.0)


def base_optimizer(model: nn.Module) -> Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(parameters, lr=SPECIFIED.lr, weight_decay=SPECIFIED.weight_decay)


def routed(model: nn.Module, **options: Any) -> Optimizer:
    return RoutedOptimizer(base_optimizer(model), model, basis_of(model), **options)


class RecordingTrainer(Trainer):
    """Keeps, for every step, its micro-batches and what has accumulated before anything clips it.

    `duplicates` counts the backward passes after which a quarantine still had a gradient.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.batches: list[Batch] = [[]]
        self.accumulated: list[Vectors] = []
        self.duplicates = 0

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        self.batches[-1].append(dict(inputs))
        loss = super().training_step(model, inputs, *args, **kwargs)
        pairs = routed_vectors(model)
        self.duplicates += any(p.quarantine is not None and p.quarantine.grad is not None for p in pairs.values())
        if self.accelerator.sync_gradients:
            self.accumulated.append({name: pair.deployed.grad.clone() for name, pair in pairs.items()})
            self.batches.append([])
        return loss

    def logged(self, key: str) -> list[float]:
        return [entry[key] for entry in self.state.log_history if key in entry]


def trainer_of(
    path: Path,
    optimizer_of: Callable[[nn.Module], Optimizer],
    *,
    dtype: torch.dtype = torch.float64,
    quarantine: bool = True,
    **options: Any,
) -> RecordingTrainer:
    """A Trainer that has not trained yet; the same arguments give the same bits."""
    model = adapted(dtype, quarantine=quarantine)
    optimizer = optimizer_of(model)
    arguments = TrainingArguments(
        output_dir=str(path), max_steps=STEPS, per_device_train_batch_size=BATCH, max_grad_norm=LIMIT,
        gradient_accumulation_steps=ACCUMULATION, logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
        seed=3, **{"save_strategy": "no", **options},
    )  # fmt: skip
    return RecordingTrainer(
        model=model, args=arguments, train_dataset=dataset(), compute_loss_func=loss_of,
        optimizers=(optimizer, LambdaLR(optimizer, schedule)),
    )  # fmt: skip


def trained(path: Path, optimizer_of: Callable[[nn.Module], Optimizer], **options: Any) -> RecordingTrainer:
    trainer = trainer_of(path, optimizer_of, **options)
    trainer.train()
    return trainer


def clipped_steps(trainer: RecordingTrainer) -> int:
    """Of how many steps the gradient was longer than the limit."""
    norms = trainer.logged("grad_norm")
    assert len(norms) == STEPS
    return sum(norm > LIMIT for norm in norms)


Runs = dict[str, RecordingTrainer]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One run for each space, under route, in float64."""
    path = tmp_path_factory.mktemp("trainer")
    return {space: trained(path, partial(routed, space=space)) for space in SPACES}


# (a) The Trainer against a loop and against the specification


def by_hand(model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, batches: list[Batch]) -> None:
    """Accumulate, clip everything by its global norm, step, schedule."""
    model.train()
    for batch in batches:
        tokens = sum(int((rows["labels"][:, 1:] != -100).sum()) for rows in batch)
        for rows in batch:
            loss_of(model(input_ids=rows["input_ids"]), rows["labels"], tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), LIMIT)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("space", SPACES)
def test_trainer_equals_a_loop_by_hand(runs: Runs, space: str) -> None:
    """Same micro-batches, clip and schedule: the same operations, so the same bits."""
    trainer = runs[space]
    assert 0 < clipped_steps(trainer) < STEPS
    assert [len(batch) for batch in trainer.batches[:-1]] == [ACCUMULATION] * STEPS
    model = adapted(torch.float64)
    optimizer = routed(model, space=space)
    by_hand(model, optimizer, LambdaLR(optimizer, schedule), trainer.batches[:-1])
    assert same_bits(deployed(trainer.model), deployed(model))
    assert same_bits(quarantined(trainer.model), quarantined(model))
    assert any(q.any() for q in quarantined(model).values())


@pytest.mark.parametrize("space", SPACES)
def test_trainer_equals_the_specification_open_loop(runs: Runs, space: str) -> None:
    """The accumulated gradients, replayed step by step with the scheduled learning rate, in float64.

    torch clips by limit / (norm + 1e-6), which is the specification's limit / norm at a limit of
    limit · norm / (norm + 1e-6).
    """
    trainer = runs[space]
    basis = dict(basis_of(trainer.model))
    start = {name: torch.zeros_like(p) for name, p in deployed(trainer.model).items()}
    rows = {name: basis.get(name, torch.zeros(0, p.numel(), dtype=p.dtype)) for name, p in start.items()}
    routing = reference.Routing(optimizer=SPECIFIED, space=space)
    state, clipped = reference.initial(routing, start), 0
    for step, g in enumerate(trainer.accumulated):
        norm = float(reference.global_norm(g.values()))
        now = replace(
            routing,
            optimizer=replace(SPECIFIED, lr=SPECIFIED.lr * schedule(step)),
            max_norm=LIMIT * norm / (norm + 1e-6),
        )
        state = reference.routed_step(now, state, g, rows)
        clipped += state.norm_post_clip < state.norm_pre_clip * (1 - 1e-6)
    assert 0 < clipped < STEPS
    assert relative(deployed(trainer.model), state.deployed) <= 1e-12
    assert relative(quarantined(trainer.model), state.quarantine) <= 1e-12


def test_the_combined_point_trains_as_without_routing(runs: Runs, tmp_path: Path) -> None:
    """Closed loop: the gradients of each run are its own. Where the point is split, its trajectory is vanilla's.

    The model's norms and rotary embedding compute in float32, so that a point which is off by float64's rounding
    may have gradients that are off by float32's.
    """
    vanilla = deployed(trained(tmp_path, partial(routed, intervention="none")).model)
    off = {}
    for space, trainer in runs.items():
        quarantine = quarantined(trainer.model)
        total = {name: p + quarantine[name] for name, p in deployed(trainer.model).items()}
        off[space] = relative(total, vanilla)
    assert max(off["update"], off["displacement"]) <= 1e-6
    assert off["gradient"] > 1e-2  # AdamW is not linear, so two states don't keep the sum


# (b) The norm that is logged


@pytest.mark.parametrize("space", SPACES)
def test_logged_norm_is_the_gradients_own(runs: Runs, space: str) -> None:
    """The quarantine's gradient equals the deployed one; left in place it would make every norm sqrt(2) times this."""
    trainer = runs[space]
    assert trainer.duplicates == 0
    norms = [float(reference.global_norm(g.values())) for g in trainer.accumulated]
    assert trainer.logged("grad_norm") == pytest.approx(norms, rel=1e-12)


def test_without_a_routed_optimizer_the_norm_would_be_longer(runs: Runs, tmp_path: Path) -> None:
    trainer = trained(tmp_path, base_optimizer)
    assert trainer.duplicates == STEPS * ACCUMULATION
    ours = runs["displacement"].logged("grad_norm")[0]
    assert trainer.logged("grad_norm")[0] == pytest.approx(2**0.5 * ours, rel=1e-12)


# (c) Gradient checkpointing


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(runs: Runs, use_reentrant: bool, tmp_path: Path) -> None:
    trainer = trainer_of(
        tmp_path,
        routed,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"use_reentrant": use_reentrant},
    )
    forwards = []
    layer = trainer.model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    layer.register_forward_hook(lambda *_: forwards.append(1))
    trainer.train()
    assert len(forwards) == 2 * STEPS * ACCUMULATION  # every forward pass is run once more in backward
    plain = runs["displacement"]
    assert trainer.duplicates == 0
    assert trainer.logged("grad_norm") == plain.logged("grad_norm")
    assert same_bits(deployed(trainer.model), deployed(plain.model))
    assert same_bits(quarantined(trainer.model), quarantined(plain.model))


# (d) Resumption


@pytest.mark.parametrize("space", SPACES)
def test_resumption_is_bitwise(space: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"dtype": torch.float32, "save_strategy": "steps", "save_steps": STEPS // 2}

    straight = trained(tmp_path, partial(routed, space=space), **options)
    assert 0 < clipped_steps(straight) < STEPS
    checkpoint = tmp_path / f"checkpoint-{STEPS // 2}"
    halfway = load_file(checkpoint / "adapter_model.safetensors")
    assert sum("deployed" in name for name in halfway) == sum("quarantine" in name for name in halfway) == 14
    assert (checkpoint / "optimizer.pt").is_file()
    assert (checkpoint / "scheduler.pt").is_file()

    resumed = trainer_of(tmp_path / "again", partial(routed, space=space), **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert len(resumed.accumulated) == STEPS - STEPS // 2
    assert same_bits(deployed(straight.model), deployed(resumed.model))
    assert same_bits(quarantined(straight.model), quarantined(resumed.model))
    assert any(q.any() for q in quarantined(straight.model).values())
    for key in ("grad_norm", "learning_rate", "loss"):
        assert resumed.logged(key) == straight.logged(key)


# (e) Without an intervention


@pytest.mark.parametrize("space", SPACES)
def test_none_is_the_base_optimizer_bitwise(space: str, tmp_path: Path) -> None:
    """The wrapper, and a quarantine that is there but never moves, change not one bit."""
    ours = trained(tmp_path, partial(routed, intervention="none", space=space), dtype=torch.float32)
    plain = trained(tmp_path, base_optimizer, dtype=torch.float32, quarantine=False)
    assert 0 < clipped_steps(plain) < STEPS
    assert same_bits(deployed(ours.model), deployed(plain.model))
    assert ours.logged("grad_norm") == plain.logged("grad_norm")
    assert not any(q.any() for q in quarantined(ours.model).values())
    assert not quarantined(plain.model)


# (f) What is shipped


@pytest.mark.parametrize("space", SPACES)
def test_export_is_the_ablated_model(runs: Runs, space: str) -> None:
    """Up to rounding, which is float32's where the model computes in it; and what is left out made a difference."""
    model = runs[space].model.eval()
    tokens = torch.stack([row["input_ids"] for row in dataset()])
    with torch.no_grad():
        shipped, training = export_deployed(model)(tokens).logits, model(tokens).logits
        with ablate_quarantine(model):
            ablated = model(tokens).logits
    torch.testing.assert_close(shipped, ablated, rtol=1e-6, atol=1e-6)
    assert float((training - ablated).abs().max()) > 0.1
