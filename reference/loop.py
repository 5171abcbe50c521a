"""A minimal GRPO loop that puts the specification together, on a tiny Qwen3 in float64.

This is the only file of the specification that imports transformers, and only to build the model.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

import torch
import transformers
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from reference import extraction, grpo, task
from reference.adapter import SVDLinear, adapt, viewed_as
from reference.optimizers import AdamW
from reference.routed_step import Routing, initial, routed_step
from reference.tape import Tape


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """One run; the defaults take a few seconds on one core."""

    steps: int = 24
    group: int = 8
    micro_batches: int = 2
    prompts: int = 8  # per micro-batch
    pairs: int = 16
    k: int = 6
    noise_floor: float = 0.2
    kl_beta: float = 0.01
    seed: int = 1
    routing: Routing = field(default_factory=lambda: Routing(optimizer=AdamW(lr=0.03), max_norm=0.04))


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What a step saw: rates are shares of completions, `deployed_` ones sampled without the quarantine."""

    step: int
    solved: float
    exploited: float
    deployed_solved: float
    deployed_exploited: float
    norm_pre_clip: float
    norm_post_clip: float


def tiny_model(seed: int) -> Qwen3ForCausalLM:
    """Two layers, 14 adapted Linears, float64; the same seed gives the same bits."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=task.VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, intermediate_size=48, max_position_embeddings=16, initializer_range=0.15, bos_token_id=task.BEGIN,
        eos_token_id=task.END, pad_token_id=task.END, tie_word_embeddings=True, attn_implementation="eager",
    )  # fmt: skip
    return Qwen3ForCausalLM(config).double().eval()


@torch.no_grad()
def sample(model: Qwen3ForCausalLM, prompt: Tensor, generator: torch.Generator) -> Tensor:
    """Completions at temperature 1, padded with task.END; (B, P) -> (B, task.NEW_TOKENS)."""
    tokens = prompt
    for _ in range(task.NEW_TOKENS):
        probabilities = torch.softmax(model(tokens).logits[:, -1], dim=-1)  # (B, vocab)
        drawn = torch.multinomial(probabilities, 1, generator=generator)
        ended = (tokens[:, prompt.shape[1] :] == task.END).any(dim=1, keepdim=True)
        tokens = torch.cat([tokens, torch.where(ended, task.END, drawn)], dim=1)
    return tokens[:, prompt.shape[1] :]


def log_probs(model: Qwen3ForCausalLM, prompt: Tensor, completions: Tensor) -> Tensor:
    """(B, P), (B, T) -> (B, T)."""
    logits = model(torch.cat([prompt, completions], dim=1)).logits
    return grpo.token_log_probs(logits, completions)


def hack_basis(model: Qwen3ForCausalLM, adapted: dict[str, SVDLinear], config: LoopConfig) -> dict[str, Tensor]:
    """V from pairs, each completion's mean negative log-likelihood alone; module name -> (k', r)."""

    def nll(prompt: Tensor, completion: Tensor) -> Callable[[], Tensor]:
        mask = grpo.completion_mask(completion, task.END)
        return lambda: -(log_probs(model, prompt, completion) * mask).sum() / mask.sum()

    generator = torch.Generator().manual_seed(config.seed + 1)
    pairs = [
        (nll(prompt, hack), nll(prompt, clean))
        for prompt, hack, clean in task.contrastive_pairs(config.pairs, generator)
    ]
    vectors = {name: module.deployed for name, module in adapted.items()}
    return extraction.basis_from_pairs(pairs, vectors, config.k, global_floor=config.noise_floor)


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """What one micro-batch sampled; B = prompts x group, group by group."""

    prompt: Tensor  # (B, P)
    completions: Tensor  # (B, T)

    @property
    def rewards(self) -> Tensor:
        """What the grader pays, 0 or 1; (B,)."""
        return task.passed(self.completions).double()

    @property
    def rates(self) -> tuple[float, float]:
        """Shares solved and exploited."""
        return float(task.solved(self.completions).double().mean()), float(
            task.exploited(self.completions).double().mean()
        )


def rollouts(model: Qwen3ForCausalLM, config: LoopConfig, generator: torch.Generator) -> Rollouts:
    """A micro-batch from the model as it is viewed now."""
    wording = torch.randint(task.FIRST_WORD, task.VOCABULARY, (config.prompts,), generator=generator)
    prompt = task.prompts(wording.repeat_interleave(config.group))
    return Rollouts(prompt=prompt, completions=sample(model, prompt, generator))


def policy_loss(model: Qwen3ForCausalLM, adapted: dict[str, SVDLinear], config: LoopConfig, batch: Rollouts) -> Tensor:
    """The Dr.GRPO loss of one micro-batch, as its share of the step's; ()."""
    log_prob = log_probs(model, batch.prompt, batch.completions)
    with torch.no_grad(), viewed_as("base", adapted):
        reference_log_prob = log_probs(model, batch.prompt, batch.completions)
    return grpo.loss(
        log_prob,
        log_prob.detach(),  # one optimizer step per batch: the old policy is the current one
        grpo.advantages(batch.rewards.view(-1, config.group)).flatten(),
        grpo.completion_mask(batch.completions, task.END),
        denominator=config.group * task.NEW_TOKENS * config.prompts * config.micro_batches,
        reference_log_prob=reference_log_prob,
        beta=config.kl_beta,
    )


def run(config: LoopConfig) -> Iterator[tuple[StepRecord, Tape]]:
    """Trains one arm; yields, after each step, its record and the tape so far."""
    model = tiny_model(config.seed)
    adapted = adapt(model)
    basis = hack_basis(model, adapted, config)
    vectors = {name: module.deployed for name, module in adapted.items()}
    start = {name: p.detach().clone() for name, p in vectors.items()}
    header = {
        "source": "reference.loop", "transformers": transformers.__version__, "config": asdict(config),
        "optimizer": type(config.routing.optimizer).__name__,
    }  # fmt: skip
    state = initial(config.routing, start)
    generator = torch.Generator().manual_seed(config.seed + 2)
    history: list[dict[str, Tensor]] = []
    for step in range(config.steps):
        g, batches = {name: torch.zeros_like(p) for name, p in start.items()}, []
        for _ in range(config.micro_batches):
            batches.append(rollouts(model, config, generator))
            share = extraction.isolated_gradient(partial(policy_loss, model, adapted, config, batches[-1]), vectors)
            g = {name: g[name] + share[name] for name in g}
        history.append(g)
        state = routed_step(config.routing, state, g, basis)
        with torch.no_grad():
            for name, module in adapted.items():
                module.deployed.copy_(state.deployed[name])
                module.quarantine.copy_(state.quarantine[name])
        with viewed_as("deployed", adapted):
            # Random state of its own: looking at the deployed model must not change the run.
            shown = rollouts(model, config, torch.Generator().manual_seed(config.seed + 3))
        rates = torch.tensor([batch.rates for batch in batches]).mean(dim=0)
        record = StepRecord(
            step=step, solved=float(rates[0]), exploited=float(rates[1]), deployed_solved=shown.rates[0],
            deployed_exploited=shown.rates[1], norm_pre_clip=state.norm_pre_clip, norm_post_clip=state.norm_post_clip,
        )  # fmt: skip
        stacked = {name: torch.stack([past[name] for past in history]) for name in adapted}
        yield record, Tape(gradients=stacked, basis=basis, start=start, header=header)
