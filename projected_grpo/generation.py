"""Sampling of completions with a key-value cache, for any causal language model of transformers.

Prompts are padded on the left, so that the last position is the last token of every prompt:

    prompt_ids      pad pad  a   b   c         attention_mask  0  0  1  1  1         positions  0  0  0  1  2

transformers' own `generate` does the same with more than twice the overhead, which is most of the time with a tiny
model, and draws from the global random state. Here every draw is from a generator that the caller owns.

A group samples one prompt many times, and its completions end at different times. So equal prompts are read once, and
rows that have ended leave the batch as soon as half of it has. Neither changes which number is drawn for which row.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from projected_grpo.errors import NonFiniteLogitsError, SettingError, ShapeMismatchError
from projected_grpo.grpo import check_tokens
from projected_grpo.norms import working_dtype

RECURRENT = ("conv_states", "recurrent_states")  # what transformers' caches call them


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt_ids: Tensor,
    attention_mask: Tensor,
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    pad_id: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> Tensor:
    """Samples one completion per prompt, (B, P) -> (B, T) with T <= max_new_tokens; stops when all have ended.

    The same generator gives the same tokens as a loop without a cache, up to rounding of the logits. Half-precision
    logits are normalised in float32. The model is in eval mode meanwhile, so dropout never reaches a rollout.

    Arguments:
        model: takes input_ids, attention_mask, position_ids, past_key_values, and gives logits and past_key_values.
        prompt_ids: (B, P) ids, padded on the left.
        attention_mask: (B, P), 1 at tokens and 0 at padding.
        max_new_tokens: the longest completion.
        eos_ids: each of these ends a completion, which includes it.
        pad_id: what stands after an end; it may be one of eos_ids, since `completion_mask` goes by position.
        generator: decides the draws, one a row and position, on its own device.
        temperature: what logits are divided by; 0 takes the likeliest token and draws nothing.

    Raises:
        ShapeMismatchError: prompt and mask disagree, there is no prompt, or one is padded on the right or empty.
        SettingError: max_new_tokens < 1, or a temperature that is negative or not finite.
        NonFiniteLogitsError: the model gives no probabilities, at a temperature above 0.
    """
    _check(prompt_ids, attention_mask, max_new_tokens, temperature)
    ends = torch.tensor(list(eos_ids), device=prompt_ids.device, dtype=prompt_ids.dtype)
    completions = prompt_ids.new_full((len(prompt_ids), max_new_tokens), pad_id)
    with _evaluating(model):
        decoded = _Decoded.behind_prompts(model, prompt_ids, attention_mask.long())
        for position in range(max_new_tokens):
            luck = None if temperature == 0 else uniform(len(prompt_ids), generator, prompt_ids.device)[decoded.rows]
            drawn = draw_tokens(decoded.logits, luck, temperature).to(prompt_ids.dtype)
            tokens = torch.where(decoded.ended, pad_id, drawn)
            completions[decoded.rows, position] = tokens
            decoded.ended |= torch.isin(drawn, ends)
            running = len(decoded.rows) - int(decoded.ended.sum())
            if not running or position + 1 == max_new_tokens:
                break
            if 2 * running <= len(decoded.rows):
                tokens = decoded.without_ended(tokens)
            decoded.go_on(model, tokens)
    return completions[:, : position + 1]


@dataclass
class _Decoded:
    """The b rows of a batch that are decoded still."""

    rows: Int[Tensor, " b"]  # where they stand in the batch
    ended: Bool[Tensor, " b"]
    mask: Int[Tensor, "b S"]  # 1 at tokens, of which there are S so far
    positions: Int[Tensor, "b 1"]  # of the last one
    cache: Any
    logits: Float[Tensor, "b vocab"]  # behind the last one

    @classmethod
    def behind_prompts(cls, model: nn.Module, prompt_ids: Int[Tensor, "B P"], mask: Int[Tensor, "B P"]) -> "_Decoded":
        """All rows, of which none has ended; a prompt that stands there several times is run once."""
        each = torch.arange(len(prompt_ids), device=prompt_ids.device)
        different, of = torch.unique(torch.cat([prompt_ids, mask], dim=1), dim=0, return_inverse=True)
        if 2 * len(different) <= len(prompt_ids):
            ids, own = different.chunk(2, dim=1)
            once = cls._run(model, each[: len(ids)], ids, own)
            if _can_select(once.cache):
                once.select(of)
                once.rows = each
                return once
        return cls._run(model, each, prompt_ids, mask)

    @classmethod
    def _run(cls, model: nn.Module, rows: Tensor, ids: Tensor, mask: Tensor) -> "_Decoded":
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        # Only the last position is needed: all of them would be (B, P, vocab).
        output = model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=None, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        return cls(rows, ended, mask, positions[:, -1:], output.past_key_values, output.logits[:, -1])

    def select(self, at: Int[Tensor, " n"]) -> None:
        """Goes on with these rows, in this order."""
        self.rows, self.ended, self.logits = self.rows[at], self.ended[at], self.logits[at]
        self.mask, self.positions = self.mask[at], self.positions[at]
        self.cache.batch_select_indices(at)

    def without_ended(self, tokens: Int[Tensor, " b"]) -> Int[Tensor, " n"]:
        """Leaves the rows out that have ended, where the cache lets it; their tokens too."""
        if not _can_select(self.cache):
            return tokens
        at = (~self.ended).nonzero().squeeze(1)
        self.select(at)
        return tokens[at]

    def go_on(self, model: nn.Module, tokens: Int[Tensor, " b"]) -> None:
        """Runs one more token a row."""
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self.positions = self.positions + 1
        output = model(
            input_ids=tokens[:, None], attention_mask=self.mask, position_ids=self.positions,
            past_key_values=self.cache, use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        self.cache, self.logits = output.past_key_values, output.logits[:, -1]


def _can_select(cache: Any) -> bool:
    """Whether rows of the batch can leave it. Layers with a recurrent state select keys and values alone."""
    layers = getattr(cache, "layers", None) or []
    return bool(layers) and all(
        hasattr(layer, "batch_select_indices") and not any(hasattr(layer, state) for state in RECURRENT)
        for layer in layers
    )


def uniform(rows: int, generator: torch.Generator, device: torch.device) -> Float[Tensor, " B"]:
    """A number from [0, 1) for each row, drawn on the generator's device, so that one of the CPU serves a model
    anywhere."""
    drawn = torch.rand(rows, dtype=torch.float64, device=generator.device, generator=generator)
    return drawn.to(device)


def draw_tokens(
    logits: Float[Tensor, "B vocab"], luck: Float[Tensor, " B"] | None, temperature: float
) -> Int[Tensor, " B"]:
    """One token per row: the first whose cumulative probability exceeds the row's luck, from [0, 1).

    Summed in float64, for the sum of a vocabulary's probabilities in float32 is off by more than rare tokens have.

    Raises NonFiniteLogitsError where there are no probabilities; the likeliest token is taken of whatever there is.
    """
    if luck is None:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.to(working_dtype(logits.dtype)) / temperature, dim=-1)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    if not bool(cumulative[:, -1].isfinite().all()):
        raise NonFiniteLogitsError(
            "The model gives no probabilities to draw from, for its logits are not finite; it has diverged, so lower "
            "the learning rate."
        )
    drawn = torch.searchsorted(cumulative, (luck * cumulative[:, -1])[:, None], right=True)
    return drawn.squeeze(1).clamp(max=logits.shape[1] - 1)


def completion_mask(completions: Int[Tensor, "B T"], eos_ids: Sequence[int]) -> Bool[Tensor, "B T"]:
    """Which tokens were sampled: up to and including the first end; what follows it is padding.

    By position, since padding often shares its id with an end. A completion without an end counts whole.

    >>> completion_mask(torch.tensor([[5, 2, 2], [5, 0, 5]]), [2])
    tensor([[ True,  True, False],
            [ True,  True,  True]])
    """
    ends = is_end(completions, eos_ids)
    return ends.cumsum(dim=1) - ends.long() == 0  # none before it


def has_ended(completions: Int[Tensor, "B T"], eos_ids: Sequence[int]) -> Bool[Tensor, " B"]:
    """Which completions have an end, and so weren't cut off."""
    return is_end(completions, eos_ids).any(dim=1)


def is_end(completions: Int[Tensor, "B T"], eos_ids: Sequence[int]) -> Bool[Tensor, "B T"]:
    """Which tokens are one of eos_ids, those in the padding included."""
    return torch.isin(completions, torch.tensor(list(eos_ids), device=completions.device, dtype=completions.dtype))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """A block in eval mode; afterwards each module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check(prompt_ids: Tensor, attention_mask: Tensor, max_new_tokens: int, temperature: float) -> None:
    check_tokens(prompt_ids)
    if attention_mask.shape != prompt_ids.shape or 0 in prompt_ids.shape:
        shapes = f"{tuple(attention_mask.shape)} and prompt_ids {tuple(prompt_ids.shape)}"
        raise ShapeMismatchError(f"attention_mask is {shapes}; both must be (B, P), of at least one token.")
    if not bool(attention_mask[:, -1].all()):
        raise ShapeMismatchError("A prompt ends with padding; pad on the left (padding_side='left').")
    if max_new_tokens < 1:
        raise SettingError(f"max_new_tokens is {max_new_tokens!r}; it must be a whole number above 0.")
    if not 0 <= temperature < float("inf"):
        raise SettingError(f"temperature is {temperature!r}; it must be a finite number of at least 0.")
