"""What an optimizer says about itself is about its own base, its own settings and its own vectors."""

from typing import Any

import pytest
import torch
from routed_toys import make_basis, make_pairs, parameters
from torch import nn

from projected_grpo.basis import Basis
from projected_grpo.claims import claims_of
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.probes import measure
from projected_grpo.vectors import VectorPair


def pair(*, quarantine: bool = True) -> VectorPair:
    """Away from each other, since where vectors stand is no option of their groups."""
    return VectorPair(nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4)) if quarantine else None)


def on(groups: list[dict[str, Any]], pairs: dict[str, VectorPair], **settings: Any) -> RoutedOptimizer:
    basis = Basis({name: torch.eye(1, 4) for name in pairs})
    return RoutedOptimizer(torch.optim.SGD(groups, lr=0.1), pairs, basis, **{"space": "gradient", **settings})


def keeps_sum(optimizer: RoutedOptimizer) -> bool:
    """Said alike by both, the table and the data."""
    holds = optimizer.guarantees()["keeps_sum"].holds
    line = next(line for line in optimizer.explain().splitlines() if line.startswith("keeps_sum"))
    assert line.split()[1] == ("yes" if holds else "no")
    return holds


@pytest.mark.parametrize("settings", [{"space": "gradient", "clip": "joint", "max_norm": 1.0}, {"space": "update"}])
def test_the_claims_are_those_of_the_settings_and_the_measured_base(settings: dict[str, Any]) -> None:
    for build in (lambda p: torch.optim.SGD(p, lr=0.1), lambda p: torch.optim.AdamW(p, lr=0.1)):
        pairs = make_pairs()
        base = build(parameters(pairs))
        optimizer = RoutedOptimizer(base, pairs, make_basis(), **settings)
        claims = claims_of(optimizer.routing, measure(base))
        assert optimizer.guarantees() == claims
        for name, claim in claims.items():
            assert f"{name:<24}{'yes' if claim.holds else 'no':<5}{claim.why}" in optimizer.explain().splitlines()


def test_both_vectors_of_every_pair_must_be_stepped_alike() -> None:
    first, second = pair(), pair()
    for alike, groups in (
        (True, [{"params": [*first, *second]}]),
        (True, [{"params": [first.deployed, second.deployed]}, {"params": [first.quarantine, second.quarantine]}]),
        (True, [{"params": [*first]}, {"params": [*second], "lr": 0.2}]),
        (False, [{"params": [first.deployed, *second]}, {"params": [first.quarantine], "lr": 0.2}]),
        (False, [{"params": [*first, second.deployed]}, {"params": [second.quarantine], "momentum": 0.5}]),
    ):
        assert keeps_sum(on(groups, {"first": first, "second": second})) == alike


def test_a_pair_of_which_base_holds_one_vector_has_nothing_to_compare() -> None:
    first, second = pair(quarantine=False), pair()
    groups = [{"params": [first.deployed, second.deployed]}]
    optimizer = on(groups, {"first": first, "second": second}, intervention="erase")
    assert optimizer.guarantees()["erase_match"].holds
    assert "erase_match" in optimizer.explain()


@pytest.mark.parametrize("ask", ["explain", "guarantees"])
def test_what_steps_the_unrouted_parameters_is_not_measured(ask: str) -> None:
    """A head that decays coordinate by coordinate says nothing about the vectors, which its group does not hold."""

    class SignForOthers(torch.optim.SGD):
        """Sign descent in the groups that ask for it, which is not linear."""

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.sub_(group["lr"] * (p.grad.sign() if group["nesterov"] else p.grad))

    routed, head = pair(), nn.Parameter(torch.zeros(3))
    groups = [{"params": [*routed]}, {"params": [head], "nesterov": True, "momentum": 0.5}]
    base = SignForOthers(groups, lr=0.1)
    optimizer = RoutedOptimizer(base, {"q": routed}, Basis({"q": torch.eye(1, 4)}), space="gradient")
    assert measure(base, {id(p) for p in routed}).linear
    assert not measure(base).linear
    if ask == "guarantees":
        assert optimizer.guarantees()["keeps_sum"].holds
    else:
        assert f"{'keeps_sum':<24}yes" in optimizer.explain()
