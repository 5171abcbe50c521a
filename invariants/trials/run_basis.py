"""A basis that a run has extracted from its model, beside the one that its pairs have.

The pairs' gradients are taken anew, token by token, in a model beside the trained one. To first order a gradient that
is the sum of its tokens' may be off by gamma(n) times the sum of their lengths, n counting the rounded operations in a
row from a token to a logit and back, and those of the sum (Higham 2002, section 3.1); both sides may be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from invariants.bounds import gamma, unit_roundoff
from invariants.contracts.train import ContrastivePair, Extraction
from invariants.errors import SubjectContractError
from invariants.on_tokens import size, token_gradients
from invariants.trials.extraction import Exact


@dataclass(frozen=True, eq=False)
class RunBasis:
    """One extraction of a run."""

    shown: Extraction
    label: str

    def __post_init__(self) -> None:
        modules = self.shown.vectors.keys()
        if not self.shown.pairs or any(part.keys() != modules for part in (self.shown.basis, self.shown.deployed)):
            raise SubjectContractError(
                "train: an extraction must show its pairs, and basis, deployed and vectors of the same modules; a "
                "module without axes has (0, r)."
            )
        for name, V in self.shown.basis.items():
            r = len(self.shown.vectors[name])
            if V.dim() != 2 or V.shape[1] != r:
                raise SubjectContractError(f"train: the basis of {name!r} is {tuple(V.shape)}; it must be (k', {r}).")

    @cached_property
    def V(self) -> dict[str, Tensor]:  # noqa: N802  (the field's name)
        """The run's axes, zero rows left out, (k', r) float64."""
        wide = {name: V.detach().double() for name, V in self.shown.basis.items()}
        return {name: V[V.any(dim=1)] for name, V in wide.items()}

    @cached_property
    def exact(self) -> dict[str, Exact]:
        """What the pairs say."""
        D, off = self.differences(self.shown.pairs)
        return {name: Exact(rows, off, self.shown.k, self.dtype) for name, rows in D.items()}

    @property
    def dtype(self) -> torch.dtype:
        """The coarsest of those that the basis is stored or its gradients are computed in."""
        dtypes = {self.shown.computed_in or torch.float64, *(V.dtype for V in self.shown.basis.values())}
        return max(dtypes, key=unit_roundoff)

    def differences(self, pairs: Sequence[ContrastivePair]) -> tuple[dict[str, Tensor], Tensor]:
        """D of each module, (pairs, r), and how far a row of it may be off, (pairs,)."""
        vectors = self.shown.vectors
        with torch.no_grad():
            for name, p in vectors.items():
                p.copy_(self.shown.deployed[name])
        rows, off = [], []
        for pair in pairs:
            (hack, of_hack), (clean, of_clean) = (self._nll(pair.prompt, side) for side in (pair.hack, pair.clean))
            rows.append({name: hack[name] - clean[name] for name in vectors})
            n = self.shown.roundings + len(pair.hack) + len(pair.clean)
            off.append(2 * gamma(n, self.dtype) * (of_hack + of_clean))
        return {name: torch.stack([row[name] for row in rows]) for name in vectors}, torch.tensor(off).double()

    def _nll(self, prompt: Tensor, completion: Tensor) -> tuple[dict[str, Tensor], float]:
        """Gradient of the mean negative log-likelihood of the tokens, and the lengths of its parts added up."""
        total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in self.shown.vectors.items()}
        lengths = 0.0
        for of_token in token_gradients(self.shown.logits, self.shown.vectors, prompt, completion):
            total = {name: t - of_token[name] / len(completion) for name, t in total.items()}
            lengths += size(of_token) / len(completion)
        return total, lengths

    @cached_property
    def kept(self) -> dict[str, Exact]:
        """As `exact` with the axes that the floors leave, of the modules where no rounding decides how many."""
        loudest = max(self.exact.values(), key=lambda exact: float(exact.S[0]))
        left = {}
        for name, exact in self.exact.items():
            S = exact.S[: exact.count]
            floors = [(self.shown.relative_floor, exact), (self.shown.global_floor, loudest)]
            sure = all(
                ((S - share * of.S[0]).abs() > exact.off + share * of.off).all() for share, of in floors if share
            )
            if sure and exact.countable:
                k = int(torch.stack([share * of.S[0] <= S for share, of in floors]).all(dim=0).sum())
                left[name] = replace(exact, k=k)
        return left
