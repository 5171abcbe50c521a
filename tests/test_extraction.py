"""The extraction against the specification, on vectors alone and on a tiny adapted Qwen3."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft_toys import randomise, wrapped
from routed_toys import unchecked_types
from torch import Tensor, nn

from projected_grpo.adapter import AdapterStateError, fingerprints, routed_vectors
from projected_grpo.basis import Basis
from projected_grpo.errors import (
    ArgumentTypeError,
    ContrastivePairError,
    EmptyBasisError,
    FrozenVectorError,
    LiveQuarantineError,
    NonFiniteGradientError,
    ProjectedGRPOError,
    SettingError,
)
from projected_grpo.extraction import extract_basis, isolated_gradient, oriented, principal_axes
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.vectors import VectorPair
from reference import extraction as specification
from reference import grpo, task

PAIRS = 5
Pairs = list[tuple[Callable[[], Tensor], Callable[[], Tensor]]]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def qwen_pairs(model: nn.Module) -> Pairs:
    """The mean negative log-likelihood of each completion of the specification's contrastive pairs."""

    def loss(prompt: Tensor, completion: Tensor) -> Callable[[], Tensor]:
        mask = grpo.completion_mask(completion, task.END)

        def nll() -> Tensor:
            logits = model(torch.cat([prompt, completion], dim=1)).logits
            return -(grpo.token_log_probs(logits, completion) * mask).sum() / mask.sum()

        return nll

    drawn = task.contrastive_pairs(PAIRS, torch.Generator().manual_seed(2))
    return [(loss(prompt, hack), loss(prompt, clean)) for prompt, hack, clean in drawn]


def two_vectors(dtype: torch.dtype = torch.float64) -> dict[str, VectorPair]:
    return {
        name: VectorPair(nn.Parameter(randn(r, seed=r, dtype=dtype)), nn.Parameter(torch.zeros(r, dtype=dtype)))
        for name, r in (("a", 6), ("b", 3))
    }


def linear_pairs(vectors: dict[str, VectorPair], hack: dict[str, Tensor], clean: dict[str, Tensor]) -> Pairs:
    """Losses whose gradients are the rows (pairs, r) of hack and clean."""

    def loss(rows: dict[str, Tensor], j: int) -> Callable[[], Tensor]:
        return lambda: sum((vectors[name].deployed @ rows[name][j] for name in rows), start=torch.zeros(()))

    count = len(next(iter(hack.values())))
    return [(loss(hack, j), loss(clean, j)) for j in range(count)]


def noise_pairs(vectors: dict[str, VectorPair], dtype: torch.dtype = torch.float64) -> Pairs:
    hack, clean = ({n: randn(PAIRS, len(p.deployed), seed=s, dtype=dtype) for n, p in vectors.items()} for s in (1, 2))
    return linear_pairs(vectors, hack, clean)


# Against the specification


@given(
    seed=st.integers(0, 2**16), pairs=st.integers(1, 9), r=st.integers(1, 9), k=st.integers(1, 10),
    relative=st.floats(0, 1), share=st.floats(0, 1), quiet=st.sampled_from([0.0, 1e-3, 0.5, 1.0]),
)  # fmt: skip
def test_axes_are_the_specifications_bit_for_bit(
    seed: int, pairs: int, r: int, k: int, relative: float, share: float, quiet: float
) -> None:
    D = {"loud": randn(pairs, r, seed=seed), "quiet": quiet * randn(pairs, 4, seed=seed + 1)}
    own = principal_axes(D, k, relative_floor=relative, global_floor=share)
    exact = specification.extract(D, k, relative_floor=relative, global_floor=share)
    assert all(torch.equal(own[name], exact[name]) for name in D)


@given(st.lists(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 3.0]), min_size=3, max_size=3), min_size=1, max_size=6))
def test_signs_are_the_specifications_with_ties_and_abstentions(rows: list[list[float]]) -> None:
    D, V = torch.tensor(rows, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    assert torch.equal(oriented(V, D), specification.oriented(V, D))


@pytest.mark.parametrize("floors", [{}, {"relative_floor": 0.3}, {"global_floor": 0.2}], ids=str)
def test_on_a_model_it_is_the_specification_with_the_quarantine_gone(floors: dict[str, float]) -> None:
    model = randomise(wrapped(torch.float64)).eval()
    vectors, pairs = routed_vectors(model), qwen_pairs(model)
    deployed = {name: pair.deployed for name, pair in vectors.items()}
    through = specification.basis_from_pairs(pairs, deployed, 3, **floors)
    basis = extract_basis(model, pairs, 3, **floors)
    for pair in vectors.values():
        pair.quarantine.data.zero_()
    without = specification.basis_from_pairs(pairs, deployed, 3, **floors)
    shapes = {name: V.shape for name, V in basis.items()}
    assert shapes == {name: V.shape for name, V in without.items()}
    assert all(torch.equal(V, without[name]) for name, V in basis.items())  # adding a zero rounds nothing
    turned = [float((V[0] @ through[name][0]).abs()) for name, V in basis.items() if len(V) and len(through[name])]
    assert min(turned) < 0.9


def test_the_basis_belongs_to_the_model_and_its_optimizer_takes_it() -> None:
    model = wrapped(torch.float32).eval()
    basis = extract_basis(model, qwen_pairs(model), 2)
    assert basis.fingerprints == fingerprints(model)
    assert basis.dtype == torch.float32
    assert set(basis) == set(routed_vectors(model))
    vectors = [vector for pair in routed_vectors(model).values() for vector in pair]
    RoutedOptimizer(torch.optim.AdamW(vectors, lr=1e-2), model, basis)


def test_a_merged_quarantine_cannot_be_ablated() -> None:
    model = randomise(wrapped(torch.float64))
    model.merge_adapter()
    with pytest.raises(AdapterStateError):
        extract_basis(model, qwen_pairs(model), 2)


# What is left behind, and what does not enter


def test_it_leaves_no_trace_on_the_model_and_works_under_no_grad() -> None:
    model = randomise(wrapped(torch.float64)).eval()
    pairs = qwen_pairs(model)
    parameters = [vector for pair in routed_vectors(model).values() for vector in pair]
    for p in parameters[::2]:
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        basis = extract_basis(model, pairs, 2)
    assert not any(V.requires_grad for V in basis.values())
    assert all(torch.equal(p, value) for p, value in zip(parameters, before, strict=True))
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in parameters[::2])
    assert all(p.grad is None for p in parameters[1::2])


def test_an_unused_vector_has_no_gradient_and_no_axis() -> None:
    vectors = two_vectors()
    used = {"a": randn(PAIRS, 6, seed=3)}
    pairs = linear_pairs(vectors, used, {"a": torch.zeros(PAIRS, 6, dtype=torch.float64)})
    gradient = isolated_gradient(pairs[0][0], {name: pair.deployed for name, pair in vectors.items()})
    assert torch.equal(gradient["a"], used["a"][0])
    assert not gradient["b"].any()
    assert extract_basis(vectors, pairs, 2).k == {"a": 2, "b": 0}


def test_differences_no_larger_than_the_rounding_of_the_gradients_make_no_axis() -> None:
    vectors = two_vectors(torch.float32)
    shared = {name: 1 + randn(PAIRS, len(pair.deployed), dtype=torch.float32) for name, pair in vectors.items()}
    last_digit = {name: rows * (1 + 2**-23) for name, rows in shared.items()}
    hack = {"a": last_digit["a"], "b": 2 * shared["b"]}
    assert not torch.equal(hack["a"], shared["a"])
    assert extract_basis(vectors, linear_pairs(vectors, hack, shared), 3).k == {"a": 0, "b": 3}


def test_vectors_without_a_model_need_an_ablation_once_the_quarantine_lives() -> None:
    vectors = two_vectors()
    pairs = noise_pairs(vectors)
    before = extract_basis(vectors, pairs, 2)
    vectors["b"].quarantine.data.fill_(1.0)
    with pytest.raises(LiveQuarantineError, match="b: its quarantine isn't zero"):
        extract_basis(vectors, pairs, 2)
    opened = []

    @contextmanager
    def ablated() -> Iterator[None]:
        opened.append("once")
        yield

    assert extract_basis(vectors, pairs, 2, ablated=ablated) == before
    assert opened == ["once"]


def test_vectors_without_a_quarantine_need_none() -> None:
    vectors = {name: VectorPair(pair.deployed, None) for name, pair in two_vectors().items()}
    assert extract_basis(vectors, noise_pairs(vectors), 2).k == {"a": 2, "b": 2}


# What is refused


@pytest.mark.parametrize(
    ("k", "options", "error"),
    [
        (0, {}, SettingError),
        (2, {"relative_floor": -0.1}, SettingError),
        (2, {"relative_floor": math.nan}, SettingError),
        (2, {"global_floor": 1.1}, SettingError),
        (True, {}, ArgumentTypeError),
        (2.0, {}, ArgumentTypeError),
        (2, {"global_floor": "high"}, ArgumentTypeError),
        (2, {"relative_floor": True}, ArgumentTypeError),
    ],
)
def test_settings_are_checked(k: Any, options: dict[str, Any], error: type[Exception]) -> None:
    vectors = two_vectors()
    with unchecked_types(), pytest.raises(error):
        extract_basis(vectors, noise_pairs(vectors), k, **options)


@pytest.mark.parametrize(
    ("pairs", "error", "told"),
    [
        ([], ContrastivePairError, "no contrastive pair"),
        (iter([]), ArgumentTypeError, "pairs is a list_iterator"),
        ([(lambda: torch.ones(()),)], ContrastivePairError, "Pair 0 is no pair of callables"),
        ([(torch.ones(()), torch.ones(()))], ContrastivePairError, "Pair 0 is no pair of callables"),
        ([(lambda: torch.ones(()), lambda: torch.ones(()))], ContrastivePairError, "depends on the deployed vectors"),
        ([(lambda: 1.0, lambda: 1.0)], ContrastivePairError, "A loss is a float"),
    ],
)
def test_pairs_are_checked(pairs: Any, error: type[Exception], told: str) -> None:
    with unchecked_types(), pytest.raises(error, match=told):
        extract_basis(two_vectors(), pairs, 2)


def test_a_loss_of_several_numbers_is_refused() -> None:
    vectors = two_vectors()
    with pytest.raises(ContrastivePairError, match=r"A loss is a \(6,\) tensor"):
        extract_basis(vectors, [(lambda: vectors["a"].deployed * 2, lambda: vectors["a"].deployed.sum())], 1)


def test_a_gradient_that_is_not_finite_is_named() -> None:
    vectors = two_vectors()
    pairs = noise_pairs(vectors)
    pairs[2] = (pairs[2][0], lambda: (vectors["a"].deployed * math.inf).sum() + vectors["b"].deployed.sum())
    with pytest.raises(NonFiniteGradientError, match="a: the gradient of the clean completion of pair 2"):
        extract_basis(vectors, pairs, 2)


def test_a_frozen_vector_is_named() -> None:
    vectors = two_vectors()
    vectors["b"].deployed.requires_grad_(False)
    with pytest.raises(FrozenVectorError, match="b: its deployed vector is frozen"):
        extract_basis(vectors, noise_pairs(vectors), 2)


def test_there_must_be_a_vector_and_an_axis() -> None:
    with pytest.raises(EmptyBasisError, match="no vector"):
        extract_basis({}, noise_pairs(two_vectors()), 2)
    vectors = two_vectors()
    same = {name: randn(PAIRS, len(pair.deployed)) for name, pair in vectors.items()}
    with pytest.raises(EmptyBasisError, match="bring more pairs"):
        extract_basis(vectors, linear_pairs(vectors, same, same), 2)


def test_every_refusal_is_one_of_the_packages() -> None:
    for error in (ContrastivePairError, FrozenVectorError, LiveQuarantineError):
        assert issubclass(error, ProjectedGRPOError)


def test_it_is_a_basis() -> None:
    vectors = two_vectors()
    assert isinstance(extract_basis(vectors, noise_pairs(vectors), 2), Basis)
