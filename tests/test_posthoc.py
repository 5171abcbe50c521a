"""Post-hoc projection, and that routing in displacement space ends where it does."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.errors import NonFiniteVectorError, ShapeMismatchError, UnmatchedNamesError
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.posthoc import project_out
from projected_grpo.split import SplitRule
from projected_grpo.vectors import VectorPair

SHAPES = {"q": (3, 12), "v": (1, 7), "plain": (0, 5)}
RULES = [SplitRule(), SplitRule(gate="no_gate"), SplitRule(gate="reverse", overshoot=0.7, preserve_magnitude=True)]


def make_basis() -> Basis:
    generator = torch.Generator().manual_seed(0)
    return Basis({n: torch.linalg.qr(torch.randn(r, k, generator=generator))[0].T for n, (k, r) in SHAPES.items()})


def trained(**options: Any) -> tuple[dict[str, VectorPair], dict[str, Tensor]]:
    """Vectors after twelve AdamW steps on a fixed sequence of gradients, and where they started."""
    generator = torch.Generator().manual_seed(1)
    start = {name: torch.randn(r, generator=generator) for name, (_, r) in SHAPES.items()}
    pairs = {n: VectorPair(nn.Parameter(x.clone()), nn.Parameter(torch.zeros_like(x))) for n, x in start.items()}
    base = torch.optim.AdamW([p for pair in pairs.values() for p in pair if p is not None], lr=0.1, weight_decay=0.1)
    optimizer = RoutedOptimizer(base, pairs, make_basis(), space="displacement", max_norm=3.0, **options)
    for _ in range(12):
        for name, (_, r) in SHAPES.items():
            pairs[name].deployed.grad = torch.randn(r, generator=generator)
        optimizer.step()
    return pairs, start


@pytest.mark.parametrize("rule", RULES)
def test_routing_in_displacement_space_is_vanilla_training_and_one_split(rule: SplitRule) -> None:
    """Bit for bit: both split the same displacement with the same kernels."""
    routed, _ = trained(intervention="route", rule=rule)
    vanilla, start = trained(intervention="none")
    assert not any(pair.quarantine.any() for pair in vanilla.values())
    project_out(vanilla, make_basis(), start=start, rule=rule)
    for name, pair in routed.items():
        assert torch.equal(pair.deployed, vanilla[name].deployed)
        assert torch.equal(pair.quarantine, vanilla[name].quarantine)
    assert all(routed[name].quarantine.any() for name in ("q", "v"))


def test_what_is_taken_out_is_returned_and_hackward() -> None:
    pairs, start = trained(intervention="none")
    learned = {name: pair.deployed.detach().clone() for name, pair in pairs.items()}
    taken, basis = project_out(pairs, make_basis(), start=start), make_basis()
    for name, V in basis.items():
        deployed, quarantine = pairs[name]
        torch.testing.assert_close(deployed + taken[name], learned[name])
        assert torch.equal(quarantine, taken[name])
        # A hack-ward displacement goes against the coefficient's sign.
        assert ((V @ (start[name] - deployed.detach())) <= 1e-5).all()
        assert ((V @ taken[name]) <= 1e-5).all()
    assert taken["q"].any()
    assert not taken["plain"].any()


def test_projecting_twice_changes_nothing_more() -> None:
    """The sum is what is split, and it stays, up to its rounding."""
    pairs, start = trained(intervention="none")
    project_out(pairs, make_basis(), start=start)
    once = {name: pair.deployed.detach().clone() for name, pair in pairs.items()}
    project_out(pairs, make_basis(), start=start)
    for name, pair in pairs.items():
        torch.testing.assert_close(pair.deployed.detach(), once[name])


def test_an_adapter_without_quarantine_from_zero() -> None:
    basis = Basis({"q": torch.eye(1, 3)})
    pairs = {"q": VectorPair(nn.Parameter(torch.tensor([-2.0, 1.0, 0.0])), None)}
    pairs["other"] = VectorPair(nn.Parameter(torch.ones(2)), None)
    taken = project_out(pairs, basis)
    assert pairs["q"].deployed.tolist() == [0.0, 1.0, 0.0]
    assert taken["q"].tolist() == [-2.0, 0.0, 0.0]
    assert pairs["other"].deployed.tolist() == [1.0, 1.0]


def test_starts_that_do_not_fit_change_nothing() -> None:
    basis = Basis({"q": torch.eye(1, 3)})
    pairs = {"q": VectorPair(nn.Parameter(-torch.ones(3)), None)}
    with pytest.raises(UnmatchedNamesError, match="q is in the basis but not in start"):
        project_out(pairs, basis, start={})
    with pytest.raises(ShapeMismatchError, match=r"q: start is \(2,\)"):
        project_out(pairs, basis, start={"q": torch.zeros(2)})
    with pytest.raises(UnmatchedNamesError, match="match no adapted module: q"):
        project_out({"v": pairs["q"]}, basis)
    assert pairs["q"].deployed.tolist() == [-1.0, -1.0, -1.0]


@pytest.mark.parametrize("role", ["deployed", "quarantine"])
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_vectors_that_are_not_finite_change_nothing(role: str, bad: float) -> None:
    """The split would spread one such entry over the whole vector; nor is any module before it projected."""
    pairs = {n: VectorPair(nn.Parameter(-torch.ones(3)), nn.Parameter(torch.zeros(3))) for n in ("first", "q")}
    getattr(pairs["q"], role).data[1] = bad
    before = {name: [v.detach().clone() for v in pair] for name, pair in pairs.items()}
    with pytest.raises(NonFiniteVectorError, match="q: 1 of 3 entries of what was learned are NaN or infinite"):
        project_out(pairs, Basis({"first": torch.eye(1, 3), "q": torch.eye(1, 3)}))
    for name, pair in pairs.items():
        assert all(torch.equal(v.nan_to_num(), b.nan_to_num()) for v, b in zip(pair, before[name], strict=True))
