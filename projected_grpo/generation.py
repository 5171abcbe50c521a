"""Sampling of completions with a key-value cache, for any causal language model of transformers.

Prompts are padded on the left, so that the last position is the last token of every prompt:

    prompt_ids      pad pad  a   b   c         attention_mask  0  0  1  1  1         positions  0  0  0  1  2

transformers' own `generate` does the same with more than twice the overhead, which is most of the time with a tiny
model, and draws from the global random state. Here every draw is from a generator that the caller owns.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from projected_grpo.errors import NonFiniteLogitsError, SettingError, ShapeMismatchError
from projected_grpo.grpo import check_tokens
from projected_grpo.norms import working_dtype


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
        generator: decides the draws, on its own device: a CPU generator serves a model on any device.
        temperature: what logits are divided by; 0 takes the likeliest token and draws nothing.

    Raises:
        ShapeMismatchError: prompt and mask disagree, there is no prompt, or one is padded on the right or empty.
        SettingError: max_new_tokens < 1, or a temperature that is negative or not finite.
    """
    _check(prompt_ids, attention_mask, max_new_tokens, temperature)
    ends = torch.tensor(list(eos_ids), device=prompt_ids.device, dtype=prompt_ids.dtype)
    ended = torch.zeros(len(prompt_ids), dtype=torch.bool, device=prompt_ids.device)
    mask = attention_mask.long()
    inputs: dict[str, Any] = {
        "input_ids": prompt_ids,
        "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),  # (B, P)
        "past_key_values": None,
    }
    completions: list[Tensor] = []
    with _evaluating(model):
        while True:
            # Only the last position is needed: all of them would be (B, P, vocab).
            output = model(**inputs, attention_mask=mask, use_cache=True, logits_to_keep=1)
            drawn = draw_tokens(output.logits[:, -1], generator, temperature).to(prompt_ids.dtype)  # (B,)
            completions.append(torch.where(ended, pad_id, drawn))
            ended = ended | torch.isin(drawn, ends)
            if len(completions) == max_new_tokens or bool(ended.all()):
                return torch.stack(completions, dim=1)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            inputs = {
                "input_ids": completions[-1][:, None],
                "position_ids": inputs["position_ids"][:, -1:] + 1,
                "past_key_values": output.past_key_values,
            }


def draw_tokens(logits: Float[Tensor, "B vocab"], generator: torch.Generator, temperature: float) -> Int[Tensor, " B"]:
    """One token per row of logits, drawn on the generator's device and returned on that of the logits.

    Raises NonFiniteLogitsError; on a GPU generator the device says so instead, later.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.to(working_dtype(logits.dtype)) / temperature, dim=-1)
    try:
        drawn = torch.multinomial(probabilities.to(generator.device), 1, generator=generator)
    except RuntimeError as error:
        raise NonFiniteLogitsError(
            f"The model gives no probabilities to draw from ({error}); it has diverged, so lower the learning rate."
        ) from error
    return drawn.squeeze(1).to(logits.device)


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
