"""RoutedOptimizer inside TRL's GRPOTrainer: Dr.GRPO, with and without a reference policy, no network.

Not part of the default suite, since TRL is an extra: `make test-trl`.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

import reference
from invariants.cases import orthonormal_rows
from projected_grpo.adapter import AdapterStateError, SVDRoutingConfig, routed_vectors
from projected_grpo.basis import Basis
from projected_grpo.optimizer import RoutedOptimizer
from reference import grpo, task
from reference.loop import log_probs, tiny_model

# TRL checkpoints gradients by default, and turns it off while it generates, under transformers' deprecated names.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:`gradient_checkpointing{ending}` is deprecated:FutureWarning")
    for ending in ("", "_enable", "_disable")
]

Vectors = dict[str, Tensor]  # module name -> (r,)

STEPS, ACCUMULATION, PROMPTS, GROUP = 4, 2, 2, 4  # prompts per micro-batch
LIMIT = 0.13  # of the Trainer's clip, amid the norms of these gradients; every run asserts that it fires on some
SPECIFIED = reference.AdamW(lr=0.02, weight_decay=0.1)


def words() -> PreTrainedTokenizerFast:
    """One word for each token of the reference's task."""
    end = f"<{task.END}>"
    vocabulary = {f"<{i}>": i for i in range(task.VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=end))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=end, pad_token=end, unk_token=end, padding_side="left"
    )


def prompts() -> Dataset:
    rows = task.prompts(torch.arange(task.FIRST_WORD, task.VOCABULARY)).tolist()
    return Dataset.from_dict({"prompt": [" ".join(f"<{token}>" for token in row) for row in rows]})


def passed(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """The flawed grader's reward."""
    padded = [ids + [task.END] * (task.NEW_TOKENS - len(ids)) for ids in completion_ids]
    return task.passed(torch.tensor(padded)).double().tolist()


class RecordingTrainer(GRPOTrainer):
    """Keeps what each backward pass saw, where, and what has accumulated before anything clips it.

    `duplicates` counts the backward passes after which a quarantine still had a gradient.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[dict[str, Tensor]] = []
        self.at: list[dict[str, Tensor]] = []
        self.accumulated: list[Vectors] = []
        self.duplicates = 0

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.seen.append({key: value for key, value in inputs.items() if isinstance(value, Tensor)})
        self.at.append({name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad})
        return super().compute_loss(model, inputs, *args, **kwargs)

    def training_step(self, model: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(model, *args, **kwargs)
        pairs = routed_vectors(model)
        self.duplicates += any(p.quarantine is not None and p.quarantine.grad is not None for p in pairs.values())
        if self.accelerator.sync_gradients:
            self.accumulated.append({name: pair.deployed.grad.clone() for name, pair in pairs.items()})
        return loss

    def logged(self, key: str) -> list[float]:
        return [entry[key] for entry in self.state.log_history if key in entry]


def trainer_of(path: Path, *, beta: float, space: str = "displacement", adapted: bool = False) -> RecordingTrainer:
    """The adapter comes from peft_config=, so the optimizer can only be built once the trainer is."""
    model, config = tiny_model(0), SVDRoutingConfig()
    arguments = GRPOConfig(
        output_dir=str(path), max_steps=STEPS, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
        gradient_accumulation_steps=ACCUMULATION, max_completion_length=task.NEW_TOKENS, max_grad_norm=LIMIT,
        loss_type="dr_grpo", scale_rewards="none", beta=beta, use_bias_correction_kl=False, temperature=1.0,
        logging_steps=1, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True, save_strategy="no", seed=3,
    )  # fmt: skip
    trainer = RecordingTrainer(
        model=get_peft_model(model, config) if adapted else model, args=arguments, train_dataset=prompts(),
        reward_funcs=passed, processing_class=words(), peft_config=None if adapted else config,
    )  # fmt: skip
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    base = torch.optim.AdamW(parameters, lr=SPECIFIED.lr, weight_decay=SPECIFIED.weight_decay)
    trainer.optimizer = RoutedOptimizer(base, trainer.model, basis_of(trainer.model), space=space)
    return trainer


def basis_of(model: nn.Module) -> Basis:
    generator = torch.Generator().manual_seed(1)
    return Basis({n: orthonormal_rows(2, p.deployed.numel(), generator) for n, p in routed_vectors(model).items()})


def relative(ours: Vectors, theirs: Vectors) -> float:
    """Largest difference over all modules, relative to the largest entry."""
    assert ours.keys() == theirs.keys()
    size = max(float(x.abs().max()) for x in theirs.values())
    return max(float((ours[name].detach() - x).abs().max()) for name, x in theirs.items()) / size


BETAS = [0.0, 0.5]
Runs = dict[tuple[str, float], RecordingTrainer]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One run for each space and beta."""
    trainers = {}
    for space, beta in product(["gradient", "displacement"], BETAS):
        trainer = trainer_of(tmp_path_factory.mktemp("grpo"), beta=beta, space=space)
        trainer.train()
        trainers[space, beta] = trainer
    return trainers


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("space", ["gradient", "displacement"])
def test_steps_equal_the_specification_open_loop(runs: Runs, space: str, beta: float) -> None:
    """Clip, schedule and split of every step, on the gradients that accumulated."""
    trainer = runs[space, beta]
    norms = [float(reference.global_norm(g.values())) for g in trainer.accumulated]
    assert trainer.duplicates == 0
    assert trainer.logged("grad_norm") == pytest.approx(norms, rel=1e-12)
    assert 0 < sum(norm > LIMIT for norm in norms) < STEPS

    pairs, basis = routed_vectors(trainer.model), dict(basis_of(trainer.model))
    routing = reference.Routing(optimizer=SPECIFIED, space=space)
    state = reference.initial(routing, {name: torch.zeros_like(pair.deployed) for name, pair in pairs.items()})
    for g, norm, lr in zip(trainer.accumulated, norms, trainer.logged("learning_rate"), strict=True):
        limit = LIMIT * norm / (norm + 1e-6)  # torch divides by norm + 1e-6
        state = reference.routed_step(
            replace(routing, optimizer=replace(SPECIFIED, lr=lr), max_norm=limit), state, g, basis
        )
    assert len(set(trainer.logged("learning_rate"))) == STEPS
    assert relative({name: pair.deployed for name, pair in pairs.items()}, state.deployed) <= 1e-12
    assert relative({name: pair.quarantine for name, pair in pairs.items()}, state.quarantine) <= 1e-12


@pytest.mark.parametrize("beta", BETAS)
def test_gradients_are_those_of_the_specified_loss(runs: Runs, beta: float) -> None:
    """Advantages, mask, denominator and KL of loss_type="dr_grpo" with scale_rewards="none", at every step of a run.

    The KL term is the specification's with use_bias_correction_kl=False; TRL's default weights it by the ratio.
    The model's norms and rotary embedding compute in float32, so the two passes, one checkpointed and masked, agree to
    float32's rounding only: 4e-7 was the most that was seen over four steps.
    """
    trainer = runs["displacement", beta]
    model = get_peft_model(tiny_model(0), SVDRoutingConfig())
    pairs = routed_vectors(model)
    words = torch.cat([seen["prompt_ids"][:, 1] for seen in trainer.seen]).view(STEPS, -1)  # (steps, B)
    completions = [seen["completion_ids"] for seen in trainer.seen]
    rewards = torch.cat([task.passed(c).double() for c in completions]).view(STEPS, -1)
    for step, g in enumerate(trainer.accumulated):
        same = (words[step][:, None] == words[step]).double()  # (B, B), 1 where two completions answer one prompt
        assert same.sum(dim=1).eq(GROUP).all()
        advantage = rewards[step] - same @ rewards[step] / GROUP
        micro = range(step * ACCUMULATION, (step + 1) * ACCUMULATION)
        model.zero_grad()
        for i, A in zip(micro, advantage.split(PROMPTS * GROUP), strict=True):
            model.load_state_dict(trainer.at[i], strict=False)
            prompt = trainer.seen[i]["prompt_ids"]
            log_prob = log_probs(model, prompt, completions[i])
            with torch.no_grad(), model.disable_adapter():
                base = log_probs(model, prompt, completions[i])
            grpo.loss(
                log_prob, log_prob.detach(), A, grpo.completion_mask(completions[i], task.END),
                denominator=GROUP * task.NEW_TOKENS * PROMPTS * ACCUMULATION,
                reference_log_prob=base, beta=beta,
            ).backward()  # fmt: skip
        off = relative(g, {name: pair.deployed.grad for name, pair in pairs.items()})
        assert off <= 1e-5


def test_the_reference_policy_is_the_base_model(runs: Runs) -> None:
    """With peft_config= TRL turns the whole adapter off for it, both vectors at once."""
    kl = runs["displacement", 0.5].logged("kl")
    assert kl[0] == 0.0
    assert min(kl[1:]) > 0.0


def test_an_adapted_model_with_beta_is_refused(tmp_path: Path) -> None:
    """TRL would add a second adapter as the reference, and then train only one of them."""
    with pytest.raises(AdapterStateError, match=r"another one \('ref'\) is refused"):
        trainer_of(tmp_path, beta=0.5, adapted=True)
