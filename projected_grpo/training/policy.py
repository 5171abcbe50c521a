"""The policy: an adapted causal LM that samples completions and gives their log-probabilities.

Training runs the additive form, whose graph reaches the vectors; sampling runs merged weights, which cost what the base
model's do. The reference policy of the KL term is the same model without its vectors, so it is free.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftModel, get_peft_model
from torch import Tensor

from projected_grpo import arithmetic, testbed
from projected_grpo.adapter import (
    SVDRoutingConfig,
    ablate_quarantine,
    materialized,
    merged,
    routed_vectors,
    row_gradients,
)
from projected_grpo.generation import completion_mask, sample
from projected_grpo.grpo import token_log_probs
from projected_grpo.tiny.checkpoint import Family, quiet
from projected_grpo.training.config import ARITHMETIC, TESTBED, ModelConfig
from projected_grpo.training.errors import ModelError
from projected_grpo.vectors import VectorPair

View = Literal["trained", "deployed", "base"]
SHIPPED: dict[str, Family[Any]] = {TESTBED: testbed.MODELS, ARITHMETIC: arithmetic.MODELS}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


@dataclass(frozen=True)
class Completions:
    """B sampled or given completions, each behind its prompt."""

    prompt_ids: Int[Tensor, "B P"]  # padded on the left
    prompt_mask: Int[Tensor, "B P"]  # 1 at tokens
    ids: Int[Tensor, "B T"]  # padded on the right
    mask: Bool[Tensor, "B T"]  # up to and including the first end

    def __len__(self) -> int:
        return len(self.ids)

    def unpadded(self) -> list[list[int]]:
        """The tokens of each completion, its end included."""
        return [ids[own].tolist() for ids, own in zip(self.ids, self.mask, strict=True)]

    def trimmed(self) -> "Completions":
        """Without columns in which no row has a token."""
        P = int(self.prompt_mask.sum(dim=1).max())
        T = max(int(self.mask.sum(dim=1).max()), 1)
        return Completions(self.prompt_ids[:, -P:], self.prompt_mask[:, -P:], self.ids[:, :T], self.mask[:, :T])

    def __getitem__(self, rows: Tensor) -> "Completions":
        return Completions(self.prompt_ids[rows], self.prompt_mask[rows], self.ids[rows], self.mask[rows])


class Policy:
    """A causal LM with an SVD routing adapter on its Linears.

    Arguments:
        model: an adapted model, in eval mode: what is trained is what is sampled, without dropout.
        end_ids: tokens that end a completion.
        pad_id: what stands where there is no token.
        device: where the model is.
        recomputes: whether activations are recomputed in the backward pass; transformers does in train mode alone.
    """

    def __init__(
        self, model: PeftModel, *, end_ids: Sequence[int], pad_id: int, device: torch.device, recomputes: bool = False
    ) -> None:
        self.model, self.end_ids, self.pad_id, self.device = model, tuple(end_ids), pad_id, device
        self.recomputes = recomputes

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def positions(self) -> int | None:
        """The longest prompt and completion together, where the model has a limit."""
        found = getattr(self.model.config, "max_position_embeddings", None)
        return found if isinstance(found, int) else None

    @property
    def vectors(self) -> dict[str, VectorPair]:
        """Module → its two vectors."""
        return routed_vectors(self.model)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        generator: torch.Generator,
        *,
        max_new_tokens: int,
        temperature: float,
        batch: int,
        view: View = "trained",
    ) -> Completions:
        """One completion for each prompt, of the model as it is viewed; the graph does not reach back.

        Each batch has a generator of its own, drawn beforehand, so that how long one of them decodes is nothing to the
        next.
        """
        starts = range(0, len(prompts), batch)
        seeds = torch.randint(2**62, (len(starts),), generator=generator).tolist()
        with self._sampled_as(view):
            parts = [
                self._sampled(
                    prompts[at : at + batch], torch.Generator().manual_seed(seed), max_new_tokens, temperature
                )
                for at, seed in zip(starts, seeds, strict=True)
            ]
        return joined(parts, self.pad_id)

    def completed(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Completions:
        """Prompts with completions that are given as tokens."""
        ids, mask = self._left_padded(prompts)
        longest = max(len(completion) for completion in completions)
        padded = torch.tensor([[*c, *[self.pad_id] * (longest - len(c))] for c in completions], device=self.device)
        own = torch.tensor([[True] * len(c) + [False] * (longest - len(c)) for c in completions], device=self.device)
        return Completions(ids, mask, padded, own & completion_mask(padded, self.end_ids))

    def log_probs(self, batch: Completions, *, temperature: float = 1.0) -> Float[Tensor, "B T"]:
        """log π of each completion token, with a graph to the vectors unless grad is off.

        temperature: what the completions were sampled at, for π is the distribution that they are from.
        """
        ids = torch.cat([batch.prompt_ids, batch.ids], dim=1)
        mask = torch.cat([batch.prompt_mask, batch.mask.to(batch.prompt_mask.dtype)], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        logits = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False,
            logits_to_keep=batch.ids.shape[1] + 1,
        ).logits  # fmt: skip
        return token_log_probs(logits if temperature == 1 else logits / temperature, batch.ids)

    @torch.no_grad()
    def reference_log_probs(self, batch: Completions, *, temperature: float = 1.0) -> Float[Tensor, "B T"]:
        """The same of the model without its vectors."""
        with self.viewed("base"):
            return self.log_probs(batch, temperature=temperature)

    @contextmanager
    def viewed(self, view: View) -> Iterator[None]:
        """A block in which the model runs as trained, as deployed, or as it was before."""
        blocks: dict[View, Any] = {
            "trained": nullcontext,
            "deployed": lambda: ablate_quarantine(self.model),
            "base": self.model.disable_adapter,
        }
        with blocks[view]():
            yield

    def materialized(self) -> AbstractContextManager[None]:
        """A block for one backward pass, in which training runs whole weights.

        Of a half type it runs the additive form nevertheless, which sums gradients over tokens in float32.
        """
        half = self.model.get_input_embeddings().weight.dtype.itemsize == 2
        return nullcontext() if half else materialized(self.model)

    def _sampled_as(self, view: View) -> AbstractContextManager[None]:
        return self.viewed("base") if view == "base" else merged(self.model, deployed_only=view == "deployed")

    def _sampled(
        self, prompts: Sequence[Sequence[int]], generator: torch.Generator, max_new_tokens: int, temperature: float
    ) -> Completions:
        ids, mask = self._left_padded(prompts)
        completions = sample(
            self.model, ids, mask, max_new_tokens=max_new_tokens, temperature=temperature, eos_ids=self.end_ids,
            pad_id=self.pad_id, generator=generator,
        )  # fmt: skip
        return Completions(ids, mask, completions, completion_mask(completions, self.end_ids))

    def _left_padded(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[*[self.pad_id] * (longest - len(p)), *p] for p in prompts], device=self.device)
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=self.device)
        return ids, mask


def joined(parts: Sequence[Completions], pad_id: int) -> Completions:
    """Batches one after the other; prompts are padded on the left and completions on the right to the longest."""
    if len(parts) == 1:
        return parts[0]
    P, T = (max(tensors) for tensors in zip(*((p.prompt_ids.shape[1], p.ids.shape[1]) for p in parts), strict=True))
    return Completions(
        torch.cat([_padded(part.prompt_ids, (P - part.prompt_ids.shape[1], 0), pad_id) for part in parts]),
        torch.cat([_padded(part.prompt_mask, (P - part.prompt_mask.shape[1], 0), 0) for part in parts]),
        torch.cat([_padded(part.ids, (0, T - part.ids.shape[1]), pad_id) for part in parts]),
        torch.cat([_padded(part.mask, (0, T - part.mask.shape[1]), False) for part in parts]),
    )


def _padded(x: Tensor, by: tuple[int, int], value: int | bool) -> Tensor:
    return torch.nn.functional.pad(x, by, value=value)


def load(config: ModelConfig) -> tuple[Policy, Any]:
    """The adapted model and its tokenizer.

    Raises ModelError if there is no such model, or none that can be trained here.
    """
    base, tokenizer = _load_base(config)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"The tokenizer of {config.model} has no end-of-sequence token; set its eos_token.")
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    ends = {tokenizer.eos_token_id}
    own = getattr(base.generation_config, "eos_token_id", None)
    ends |= set(own if isinstance(own, list) else [] if own is None else [own])
    try:
        base = base.to(config.device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"The device {config.device!r} is not to be had here ({reason}); name another.") from error
    _without_dropout(base)
    with warnings.catch_warnings():
        # PEFT reads a deprecated property of transformers' models each time it wraps one.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = get_peft_model(base, SVDRoutingConfig(svd_dtype=config.svd_dtype)).eval()
    if config.gradient_checkpointing:
        model.enable_input_require_grads()
        # The second name is that of earlier versions of transformers.
        enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
        enable()
    policy = Policy(
        model, end_ids=sorted(ends), pad_id=pad, device=torch.device(config.device),
        recomputes=config.gradient_checkpointing,
    )  # fmt: skip
    _check_trainable(policy, config.model)
    return policy, tokenizer


def _without_dropout(model: torch.nn.Module) -> None:
    """What is trained is what is sampled, in train mode too, which recomputing activations needs."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]  # a number that attention layers keep


def _check_trainable(policy: Policy, name: str) -> None:
    """Refuses a model in which a row of the batch is not a row of every layer, or that cannot do what is needed."""
    token = policy.end_ids[0]
    try:
        batch = policy.completed([[token], [token, token]], [[token], [token]])
        with row_gradients(policy.model) as rows:
            torch.autograd.backward(policy.log_probs(batch).sum())
            taken = rows.take()
        policy.sample(
            [[token], [token, token]], torch.Generator().manual_seed(0), max_new_tokens=2, temperature=1.0, batch=2
        )
    except Exception as error:  # whatever a model of another kind raises
        raise ModelError(
            f"{name} cannot be trained here: it is no causal language model of transformers with left padding, a "
            f"key-value cache and plain Linears ({type(error).__name__}: {str(error).splitlines()[0]})."
        ) from error
    for pair in policy.vectors.values():
        for vector in pair:
            if vector is not None:
                vector.grad = None
    flat = [module for module, gradients in taken.items() if len(gradients) != len(batch)]
    if flat:
        raise ModelError(f"{name} cannot be trained here: {flat[0]} is handed the batch in one row; adapt another.")


def _load_base(config: ModelConfig) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path: str | Path = SHIPPED[config.model].folder() if config.model in SHIPPED else config.model
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[config.dtype])
            return model, AutoTokenizer.from_pretrained(path, padding_side="left")
    except Exception as error:  # whatever transformers and safetensors make of a damaged or a strange folder
        reason = (str(error) or repr(error)).splitlines()[0]
        raise ModelError(
            f"{config.model} cannot be loaded as a causal language model with its tokenizer ({reason}); "
            "name a model of the hub, or the folder that save_pretrained wrote for both."
        ) from error
