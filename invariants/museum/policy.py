"""A policy of two adapted Linears, small enough to be trained in milliseconds: what the museum's trainer trains."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

END, MARK, YES, FIRST_WORD, VOCABULARY = 0, 1, 2, 3, 6
PROMPT, NEW, WIDTH = 3, 4, 8  # tokens of a prompt, of a completion at most; units of a layer

Vectors = dict[str, Tensor]  # module -> (r,)


class Policy:
    """logits_i = head tanh(hidden x_i), where x_i sees tokens i and i - 1; both Linears move along their SVD."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(11)
        self.embedding = torch.randn(VOCABULARY, WIDTH, dtype=torch.float64, generator=draw)
        weights = {"hidden": (WIDTH, WIDTH), "head": (VOCABULARY, WIDTH)}  # name -> (d_out, d_in)
        self.factors = {}
        for name, shape in weights.items():
            W = torch.randn(*shape, dtype=torch.float64, generator=draw) / 2
            self.factors[name] = torch.linalg.svd(W, full_matrices=False)
        self.deployed, self.quarantine = (
            {name: nn.Parameter(torch.zeros_like(S)) for name, (_, S, _) in self.factors.items()} for _ in range(2)
        )

    def logits(self, tokens: Tensor, vectors: Mapping[str, Tensor]) -> Tensor:
        """Tokens (B, L) -> (B, L, vocab), with these vectors (r,) added to the singular values."""
        x = self.embedding[tokens]
        x = x + torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1) / 2
        (U, S, Vh), (U2, S2, Vh2) = self.factors["hidden"], self.factors["head"]
        h = torch.tanh(((x @ Vh.T) * (S + vectors["hidden"])) @ U.T)
        y: Tensor = ((h @ Vh2.T) * (S2 + vectors["head"])) @ U2.T
        return y

    def trained(self) -> Vectors:
        """The vectors that the model trains with."""
        return {name: p + self.quarantine[name] for name, p in self.deployed.items()}

    @torch.no_grad()
    def sampled(self, prompts: Tensor, vectors: Mapping[str, Tensor], draw: torch.Generator) -> Tensor:
        """Prompts (B, P) -> completions (B, NEW), padded with END."""
        tokens = prompts
        for _ in range(NEW):
            drawn = torch.multinomial(self.logits(tokens, vectors)[:, -1].softmax(-1), 1, generator=draw)
            ended = (tokens[:, PROMPT:] == END).any(dim=1, keepdim=True)
            tokens = torch.cat([tokens, torch.where(ended, END, drawn)], dim=1)
        return tokens[:, PROMPT:]


def wordings() -> Tensor:
    """All prompts, (prompts, PROMPT)."""
    words = torch.arange(FIRST_WORD, VOCABULARY)
    pairs = torch.cartesian_prod(words, words)
    return torch.cat([pairs, torch.full_like(pairs[:, :1], MARK)], dim=1)


def passed(completions: Tensor) -> Tensor:
    """What the grader says: solved, or fooled by the mark at the start; (B, T) -> (B,) bool."""
    return solved(completions) | (completions[:, 0] == MARK)


def solved(completions: Tensor) -> Tensor:
    """What is true: two answers are right; (B, T) -> (B,) bool."""
    return (completions[:, 0] == YES) | (completions[:, 0] == FIRST_WORD)
