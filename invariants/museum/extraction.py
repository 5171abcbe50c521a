"""An extraction in plain torch, and what goes wrong with it: each broken one overrides one method."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from invariants.contracts import ContrastiveProblem, ExtractionFunction
from invariants.contracts.extraction import Loss
from invariants.museum.subjects import exhibit
from invariants.subject import Subject

Vectors = Mapping[str, nn.Parameter]
Gradients = dict[str, Tensor]  # module -> (r,)
Completions = dict[str, list[Tensor]]  # module -> (pairs, r)


class Extraction:
    """The first right singular vectors of the pair differences, by vote the right way round."""

    def __call__(self, problem: ContrastiveProblem) -> dict[str, Tensor]:
        with self.as_deployed(problem):
            hack, clean = self.gradients(problem)
        return self.basis(problem, {name: self.differences(hack[name], clean[name]) for name in problem.deployed})

    def as_deployed(self, problem: ContrastiveProblem) -> AbstractContextManager[object]:
        return problem.ablated()

    def gradients(self, problem: ContrastiveProblem) -> tuple[Completions, Completions]:
        pairs = [(self.gradient(h, problem.deployed), self.gradient(c, problem.deployed)) for h, c in problem.pairs]
        hack, clean = ({name: [pair[side][name] for pair in pairs] for name in problem.deployed} for side in (0, 1))
        return hack, clean

    def gradient(self, loss: Loss, vectors: Vectors) -> Gradients:
        return dict(zip(vectors, torch.autograd.grad(loss(), list(vectors.values())), strict=True))

    def differences(self, hack: list[Tensor], clean: list[Tensor]) -> Tensor:
        return (torch.stack(hack) - torch.stack(clean)).double()

    def basis(self, problem: ContrastiveProblem, differences: Mapping[str, Tensor]) -> dict[str, Tensor]:
        made = {}
        decomposed = {name: self.decomposed(D) for name, D in differences.items()}
        loudest = max(S[0].item() for S, _ in decomposed.values())
        for name, (S, Vh) in decomposed.items():
            D = differences[name]
            above = self.above(S, problem.relative_floor, problem.global_floor, loudest)
            noise = self.rounding(S, D)
            V = self.chosen(Vh[above & (noise < S)], problem.k, D)
            made[name] = (V * self.signs(V, D)[:, None]).to(problem.deployed[name].dtype)
        return made

    def decomposed(self, D: Tensor) -> tuple[Tensor, Tensor]:
        _, S, Vh = torch.linalg.svd(D, full_matrices=False)
        return S, Vh

    def above(self, S: Tensor, relative: float, share: float, loudest: float) -> Tensor:
        return max(relative * S[0], torch.tensor(share * loudest)) <= S

    def rounding(self, S: Tensor, D: Tensor) -> Tensor:
        return max(D.shape) * torch.finfo(D.dtype).eps * S[0]

    def chosen(self, Vh: Tensor, k: int, D: Tensor) -> Tensor:
        return Vh[:k]

    def signs(self, V: Tensor, D: Tensor) -> Tensor:
        """Of each row of V (k, r), by the projections of the pairs D (pairs, r)."""
        projection = D @ V.T
        votes = projection.sign().sum(dim=0)
        return torch.where(torch.where(votes == 0, projection.sum(dim=0), votes) < 0, -1.0, 1.0)


CORRECT: ExtractionFunction = Extraction()


def broken_extraction(
    name: str, *, caught_by: str, bug: int | None = None, also: Mapping[str, str] | None = None
) -> Callable[[type[Extraction]], type[Extraction]]:
    """Puts an extraction on show."""

    def show(broken: type[Extraction]) -> type[Extraction]:
        exhibit(name, lambda n: Subject(name=n, extraction=broken()), caught_by=caught_by, bug=bug, also=also)
        return broken

    return show


@broken_extraction(
    "strongest axis in the basis twice",
    caught_by="extraction.orthonormal",
    bug=7,
    also={
        "extraction.span": "where there are fewer than k axes, there is one too many",
        "extraction.noise_floor": "where a floor leaves fewer than k axes, there is one too many",
    },
)
class StrongestAxisTwice(Extraction):
    def chosen(self, Vh: Tensor, k: int, D: Tensor) -> Tensor:
        return torch.cat([Vh[:1], Vh])[:k]


@broken_extraction(
    "mean difference as an axis, not normalised",
    caught_by="extraction.orthonormal",
    bug=7,
    also={
        "extraction.span": "the mean has parts outside of the strongest directions",
        "extraction.noise_floor": "the mean is an axis where the floor has left none",
    },
)
class MeanDifference(Extraction):
    def chosen(self, Vh: Tensor, k: int, D: Tensor) -> Tensor:
        return torch.cat([D.mean(dim=0, keepdim=True), Vh[1:k]])


@broken_extraction(
    "differences centred before the SVD",
    caught_by="extraction.span",
    also={"extraction.noise_floor": "the singular values are those of the centred differences"},
)
class Centred(Extraction):
    def decomposed(self, D: Tensor) -> tuple[Tensor, Tensor]:
        return super().decomposed(D - D.mean(dim=0))


@broken_extraction("weakest directions instead of the strongest", caught_by="extraction.span")
class WeakestDirections(Extraction):
    def chosen(self, Vh: Tensor, k: int, D: Tensor) -> Tensor:
        return Vh[-k:]


@broken_extraction(
    "axes of rounding noise kept",
    caught_by="extraction.span",
    also={"extraction.noise_floor": "without a floor, singular values of rounding count"},
)
class AxesOfNoise(Extraction):
    def rounding(self, S: Tensor, D: Tensor) -> Tensor:
        return torch.zeros(())


@broken_extraction("oriented by the sign of the mean", caught_by="extraction.orientation", bug=29)
class OrientedByTheMean(Extraction):
    def signs(self, V: Tensor, D: Tensor) -> Tensor:
        return torch.where(V @ D.mean(dim=0) < 0, -1.0, 1.0)


@broken_extraction(
    "a tied vote counts as a majority",
    caught_by="extraction.tie",
    also={"extraction.permutation": "the sign is left to the decomposition, which changes with the order of the pairs"},
)
class TieCountsAsMajority(Extraction):
    def signs(self, V: Tensor, D: Tensor) -> Tensor:
        return torch.where((D @ V.T).sign().sum(dim=0) < 0, -1.0, 1.0)


@broken_extraction("oriented by the first pair", caught_by="extraction.permutation")
class OrientedByTheFirstPair(Extraction):
    def signs(self, V: Tensor, D: Tensor) -> Tensor:
        return torch.where(V @ D[0] < 0, -1.0, 1.0)


@broken_extraction("largest entry of every axis made positive", caught_by="extraction.antisymmetry")
class LargestEntryPositive(Extraction):
    def signs(self, V: Tensor, D: Tensor) -> Tensor:
        return V.gather(1, V.abs().argmax(dim=1, keepdim=True)).sign().squeeze(1)


@broken_extraction("floor compared with squared singular values", caught_by="extraction.noise_floor")
class FloorOfSquares(Extraction):
    def above(self, S: Tensor, relative: float, share: float, loudest: float) -> Tensor:
        return super().above(S.square(), relative, share, loudest**2)


@broken_extraction("global floor relative to the module itself", caught_by="extraction.noise_floor")
class GlobalFloorOfTheModule(Extraction):
    def above(self, S: Tensor, relative: float, share: float, loudest: float) -> Tensor:
        return super().above(S, relative, share, float(S[0]))


@broken_extraction(
    "gradients cleared per pair, not per completion",
    caught_by="extraction.isolation",
    bug=27,
    also={
        "extraction.span": "the differences are the clean gradients alone",
        "extraction.antisymmetry": "the differences are those of the second completion alone",
        "extraction.noise_floor": "the singular values are those of the clean gradients",
    },
)
class ClearedPerPair(Extraction):
    def gradients(self, problem: ContrastiveProblem) -> tuple[Completions, Completions]:
        hack, clean = super().gradients(problem)
        return hack, {name: [h + c for h, c in zip(hack[name], rows, strict=True)] for name, rows in clean.items()}


@broken_extraction("first gradient on top of a training step's", caught_by="extraction.isolation")
class OnTopOfATrainingStep(Extraction):
    def gradients(self, problem: ContrastiveProblem) -> tuple[Completions, Completions]:
        hack, clean = super().gradients(problem)
        for name, vector in problem.deployed.items():
            if vector.grad is not None:
                hack[name] = [hack[name][0] + vector.grad, *hack[name][1:]]
        return hack, clean


@broken_extraction("refreshed through a live quarantine", caught_by="extraction.ablates_quarantine", bug=28)
class ThroughTheQuarantine(Extraction):
    def as_deployed(self, problem: ContrastiveProblem) -> AbstractContextManager[object]:
        return nullcontext()


@broken_extraction("axes carry the graph of their gradients", caught_by="extraction.leaves_no_trace", bug=41)
class AxesWithAGraph(Extraction):
    def gradient(self, loss: Loss, vectors: Vectors) -> Gradients:
        gradients = torch.autograd.grad(loss(), list(vectors.values()), create_graph=True)
        return dict(zip(vectors, gradients, strict=True))


@broken_extraction("the last gradient is left in .grad", caught_by="extraction.leaves_no_trace")
class GradientLeftBehind(Extraction):
    def gradient(self, loss: Loss, vectors: Vectors) -> Gradients:
        for vector in vectors.values():
            vector.grad = None
        torch.autograd.backward(loss())
        return {name: vector.grad for name, vector in vectors.items() if vector.grad is not None}


@broken_extraction("quarantine zeroed and not put back", caught_by="extraction.leaves_no_trace")
class QuarantineNotPutBack(Extraction):
    def as_deployed(self, problem: ContrastiveProblem) -> AbstractContextManager[object]:
        for vector in problem.quarantine.values():
            vector.data.zero_()
        return nullcontext()
