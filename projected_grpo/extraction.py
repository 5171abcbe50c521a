"""Extraction of the hack basis from contrastive pairs: (loss of a hack completion, loss of a clean one).

    d = g_hack - g_clean                       one row a pair, each gradient of one completion alone
    D = L diag(S) Vᵀ,  V ← its first k rows    for each module, in float64
    V_i ← ± V_i                                so that most pairs have d · V_i > 0

The losses are mean negative log-likelihoods, so a descent step along d makes the hack likelier: c = V g > 0 says that
a step along g moves hack-ward. Reading directions off contrastive pairs by an SVD is representation reading (Zou et
al. 2023, arXiv:2310.01405, section 3.1), here of gradients. one_sided routing depends on the axes and their signs, not
only on what they span.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.binding import fingerprints_of, vectors_of
from projected_grpo.errors import (
    ArgumentTypeError,
    ContrastivePairError,
    EmptyBasisError,
    FrozenVectorError,
    LiveQuarantineError,
    NonFiniteGradientError,
    SettingError,
    ShapeMismatchError,
    StaleBasisError,
    UnmatchedNamesError,
)
from projected_grpo.vectors import VectorPair, VectorSource

Loss = Callable[[], Tensor]
"""Builds the graph of one completion's loss and returns it, a scalar."""
Ablated = Callable[[], AbstractContextManager[object]]
"""Opens a block in which the losses read the deployed vectors alone."""


class Contrast(NamedTuple):
    """The gradients of one module, a row a pair, in float64."""

    hack: Float[Tensor, "pairs r"]
    clean: Float[Tensor, "pairs r"]

    @property
    def differences(self) -> Float[Tensor, "pairs r"]:
        """D: what the pairs differ in."""
        return self.hack - self.clean

    def resolution(self, dtype: torch.dtype) -> float:
        """How far |D| may be off in the spectral norm because the gradients were rounded to `dtype`: u (|H| + |C|)."""
        return torch.finfo(dtype).eps / 2 * float(self.hack.norm() + self.clean.norm())


def extract_basis(
    vectors: VectorSource,
    pairs: Sequence[tuple[Loss, Loss]],
    k: int,
    *,
    relative_floor: float = 0.0,
    global_floor: float = 0.0,
    ablated: Ablated | None = None,
) -> Basis:
    """The hack basis of a model as it would be deployed: a live quarantine is ablated while the gradients are taken.

    Nothing is left behind: values, `.grad` and `requires_grad` of all parameters stay as they are, and the basis
    carries no graph. Losses are evaluated in the order of the pairs, the hack first, one graph at a time; put the model
    into eval mode first if it has dropout.

    Arguments:
        vectors: an adapted model, or module → its two vectors (r,).
        pairs: (loss of the hack completion, loss of the clean one); one with a prompt in common differs in little else.
        k: at most so many axes a module.
        relative_floor: an axis is kept if its singular value reaches this share of the module's largest.
        global_floor: and this share of the largest of all modules; it is what leaves a module of noise without axes.
        ablated: for vectors that come without their model: a block in which the losses see no quarantine.

    Returns:
        A basis in the vectors' dtype, with the fingerprints of the model's decompositions. Axes whose singular value
        is no larger than the rounding of the gradients are never kept.

    Raises:
        ArgumentTypeError, SettingError: an argument of a wrong type, k < 1, or a floor outside [0, 1].
        ContrastivePairError: there is no pair, or a loss is no scalar that depends on the deployed vectors.
        FrozenVectorError: a deployed vector doesn't require a gradient.
        LiveQuarantineError: a quarantine isn't zero, and neither a model nor `ablated` says how to leave it out.
        NonFiniteGradientError: a completion's gradient holds NaN or infinity.
        EmptyBasisError: there is no module, or none has an axis above the floors.

    >>> vector = nn.Parameter(torch.zeros(3))
    >>> pairs = [(lambda: vector[0], lambda: vector[1]), (lambda: 2 * vector[0], lambda: 2 * vector[1])]
    >>> extract_basis({"layer": VectorPair(vector, None)}, pairs, 1)["layer"]
    tensor([[ 0.7071, -0.7071,  0.0000]])
    """
    _check_settings(k, relative_floor, global_floor)
    _check_pairs(pairs)
    own = vectors_of(vectors)
    deployed = {name: pair.deployed for name, pair in own.items()}
    if not deployed:
        raise EmptyBasisError("There is no vector to find axes for; pass at least one module with its two vectors.")
    for name, vector in deployed.items():
        if not vector.requires_grad:
            raise FrozenVectorError(f"{name}: its deployed vector is frozen; call requires_grad_() on it first.")
    fingerprints = fingerprints_of(vectors)
    with _as_deployed(vectors, own, ablated):
        contrasts = _contrasts(pairs, deployed)
    rows = principal_axes(
        {name: contrast.differences for name, contrast in contrasts.items()},
        k,
        relative_floor=relative_floor,
        global_floor=global_floor,
        resolution={name: contrasts[name].resolution(vector.dtype) for name, vector in deployed.items()},
    )
    return Basis({name: V.to(deployed[name].dtype) for name, V in rows.items()}, fingerprints=fingerprints)


def isolated_gradient(loss: Loss, vectors: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """The gradient of one completion's loss and of nothing before it, module → (r,); `.grad` is not touched.

    A vector that the loss does not depend on, as in an expert that no token was sent to, has the gradient zero.
    """
    with torch.enable_grad():
        value = loss()
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        what = f"{tuple(value.shape)} tensor" if isinstance(value, Tensor) else type(value).__name__
        raise ContrastivePairError(
            f"A loss is a {what} where a scalar that depends on the deployed vectors is needed: return the mean "
            "negative log-likelihood of the completion, computed without no_grad or detach."
        )
    gradients = torch.autograd.grad(value, list(vectors.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(vectors, gradients, strict=True))


def principal_axes(
    differences: Mapping[str, Float[Tensor, "pairs _"]],
    k: int,
    *,
    relative_floor: float = 0.0,
    global_floor: float = 0.0,
    resolution: Mapping[str, float] | None = None,
) -> dict[str, Float[Tensor, "_ _"]]:
    """The first right singular vectors of each module's differences (pairs, r), oriented; module → (at most k, r).

    An axis is kept if its singular value is above rounding, its own in float64 and the `resolution` of its module, and
    reaches both floors. All in float64 and outside autograd.
    """
    with torch.no_grad():
        wide = {name: D.double() for name, D in differences.items()}
        decomposed = {name: torch.linalg.svd(D, full_matrices=False) for name, D in wide.items()}
        largest = max((float(S[0]) for _, S, _ in decomposed.values()), default=0.0)
        axes = {}
        for name, (_, S, Vh) in decomposed.items():
            own = float(S[0])
            rounding = max(wide[name].shape) * torch.finfo(S.dtype).eps * own  # as in numerical rank
            noise = max(rounding, resolution[name] if resolution else 0.0)
            floor = max(relative_floor * own, global_floor * largest)
            axes[name] = oriented(Vh[:k][(S[:k] > noise) & (S[:k] >= floor)], wide[name])
        return axes


def oriented(V: Float[Tensor, "k r"], D: Float[Tensor, "pairs r"]) -> Float[Tensor, "k r"]:
    """Each row of V with the sign for which most pairs have a positive projection.

    A vote, so that one outlier pair cannot flip an axis. A tie goes by the sign of the summed projection; where that is
    zero too, the axis keeps the sign that it has.
    """
    projection = D @ V.T  # (pairs, k)
    votes = projection.sign().sum(dim=0)
    sign = torch.where(votes == 0, projection.sum(dim=0).sign(), votes.sign())
    return V * torch.where(sign == 0, 1.0, sign)[:, None]


def overlap(new: Basis, old: Basis) -> dict[str, float]:
    """How much of the old basis a refreshed one keeps: module → mean squared cosine of their principal angles.

        |V_new V_oldᵀ|² / min(k_new, k_old)        1: one span holds the other; 0: orthogonal

    Two random spans of one size overlap by k/r on average. A module in which one of the two has no row has no angle and
    is left out. Raises UnmatchedNamesError, ShapeMismatchError or StaleBasisError for bases of different models.
    """
    if set(new) != set(old):
        odd = ", ".join(sorted(set(new) ^ set(old))[:3])
        raise UnmatchedNamesError(f"The bases name different modules, among them {odd}; compare bases of one model.")
    shared = {}
    for name, V in new.items():
        if V.shape[1] != old[name].shape[1]:
            raise ShapeMismatchError(
                f"{name}: rows of length {V.shape[1]} and {old[name].shape[1]} cannot be compared; use one model."
            )
        if (mine := new.fingerprints.get(name)) != (theirs := old.fingerprints.get(name)) and mine and theirs:
            raise StaleBasisError(f"{name}: the bases live in different decompositions; extract the old one again.")
        if k := min(new.k[name], old.k[name]):
            cosines = V.double() @ old[name].double().to(V.device).T  # of all pairs of rows; zero rows add nothing
            shared[name] = min(1.0, float(cosines.square().sum()) / k)
    return shared


def _contrasts(pairs: Sequence[tuple[Loss, Loss]], deployed: Mapping[str, nn.Parameter]) -> dict[str, Contrast]:
    """The gradients of every completion, each taken alone."""
    rows: dict[str, tuple[list[Tensor], list[Tensor]]] = {name: ([], []) for name in deployed}
    for number, pair in enumerate(pairs):
        for side, (kind, loss) in enumerate(zip(("hack", "clean"), pair, strict=True)):
            for name, g in isolated_gradient(loss, deployed).items():
                if not bool(g.isfinite().all()):
                    raise NonFiniteGradientError(
                        f"{name}: the gradient of the {kind} completion of pair {number} holds NaN or infinity; leave "
                        "the pair out, or check that its completion is not empty."
                    )
                rows[name][side].append(g.double())
    return {name: Contrast(torch.stack(hack), torch.stack(clean)) for name, (hack, clean) in rows.items()}


def _as_deployed(
    source: VectorSource, own: Mapping[str, VectorPair], ablated: Ablated | None
) -> AbstractContextManager[object]:
    """A block without the quarantine."""
    if ablated is not None:
        return ablated()
    if isinstance(source, nn.Module):
        from projected_grpo.adapter import ablate_quarantine  # on demand: it brings peft along

        return ablate_quarantine(source)
    for name, pair in own.items():
        if pair.quarantine is not None and bool(pair.quarantine.any()):
            raise LiveQuarantineError(
                f"{name}: its quarantine isn't zero, and would turn the basis; pass the adapted model instead of its "
                "vectors, or `ablated`, a context manager in which the losses leave the quarantine out."
            )
    return nullcontext()


def _check_settings(k: int, relative_floor: float, global_floor: float) -> None:
    if not isinstance(k, int) or isinstance(k, bool):
        raise ArgumentTypeError(f"k is a {type(k).__name__}; it must be an int, the most axes that a module may have.")
    if k < 1:
        raise SettingError(f"k is {k}; it must be at least 1.")
    for what, floor in (("relative_floor", relative_floor), ("global_floor", global_floor)):
        if not isinstance(floor, int | float) or isinstance(floor, bool):
            raise ArgumentTypeError(f"{what} is a {type(floor).__name__}; it must be a number from 0 to 1.")
        if not 0 <= floor <= 1:
            raise SettingError(f"{what} is {floor}; it is a share of the largest singular value, from 0 to 1.")


def _check_pairs(pairs: Sequence[tuple[Loss, Loss]]) -> None:
    if not isinstance(pairs, Sequence):
        raise ArgumentTypeError(f"pairs is a {type(pairs).__name__}; pass a list of (hack loss, clean loss).")
    if not pairs:
        raise ContrastivePairError("There is no contrastive pair; pass at least one (hack loss, clean loss).")
    for number, pair in enumerate(pairs):
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(callable(loss) for loss in pair):
            raise ContrastivePairError(
                f"Pair {number} is no pair of callables; pass (hack loss, clean loss), built when called."
            )
