"""Gradients of a completion's tokens, one by one: what a loss of theirs is made of, and how large its parts are."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from reference import grpo


def token_gradients(
    logits: Callable[[Tensor], Tensor], vectors: Mapping[str, nn.Parameter], prompt: Tensor, completion: Tensor
) -> Iterator[dict[str, Tensor]]:
    """grad log pi(token) for each token of the completion, alone in its batch: module -> (r,) float64.

    logits: the tokens (L,) of prompt and completion -> (L, vocab), a graph over the vectors (r,).
    """
    scored = logits(torch.cat([prompt, completion]))[None]  # (1, L, vocab)
    for log_prob in grpo.token_log_probs(scored, completion[None]).flatten():
        of_token = torch.autograd.grad(log_prob, [*vectors.values()], retain_graph=True)
        yield {name: g.double() for name, g in zip(vectors, of_token, strict=True)}


def size(gradient: Mapping[str, Tensor]) -> float:
    """The length of a gradient, over all modules."""
    return float(torch.cat([g.flatten() for g in gradient.values()]).norm())
