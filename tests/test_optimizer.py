"""The routed optimizer: its order, what it refuses, what it leaves alone, and that it resumes bit for bit."""

import math

import pytest
import torch
from routed_toys import (
    BASES,
    INTERVENTIONS,
    SHAPES,
    SPACES,
    gradients,
    make_basis,
    make_pairs,
    parameters,
    routed,
    same_bits,
    take,
    values,
)
from torch import Tensor, nn

from projected_grpo.basis import Basis
from projected_grpo.errors import UnmatchedNamesError
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.split import split
from projected_grpo.vectors import VectorPair

# What a step does


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_what_the_base_is_fed_in_gradient_space(intervention: str) -> None:
    pairs, basis = make_pairs(), make_basis()
    optimizer = routed(pairs, intervention=intervention, space="gradient")
    seen: dict[str, list[Tensor | None]] = {}
    optimizer.base.register_step_pre_hook(
        lambda *_: seen.update({name: [v.grad for v in pair if v is not None] for name, pair in pairs.items()})
    )
    take(optimizer, pairs, range(1))
    for name, g in gradients(0).items():
        parts, (fed, quarantined) = split(g, basis[name]), seen[name]
        if intervention == "none":
            assert torch.equal(fed, g)
        else:
            torch.testing.assert_close(fed, parts.kept)
        if intervention == "route":
            torch.testing.assert_close(quarantined, parts.removed)
        else:
            assert quarantined is None  # and not zeros
        # and afterwards the gradients are as they were
        assert torch.equal(pairs[name].deployed.grad, g)
        assert pairs[name].quarantine.grad is None
    assert any(split(g, basis[name]).removed.any() for name, g in gradients(0).items())


def test_a_basis_may_name_some_of_the_modules_in_an_order_of_its_own() -> None:
    pairs = {name: VectorPair(*(nn.Parameter(torch.zeros(2)) for _ in range(2))) for name in "abc"}
    base = torch.optim.SGD([v for pair in pairs.values() for v in pair], lr=1.0)
    V = {"c": torch.tensor([[1.0, 0.0]]), "a": torch.tensor([[0.0, 1.0]])}
    optimizer = RoutedOptimizer(base, pairs, Basis(V))
    for times, pair in enumerate(pairs.values(), start=1):
        pair.deployed.grad = torch.tensor([1.0, 10.0]) * times
    optimizer.step()
    assert {name: pair.deployed.tolist() for name, pair in pairs.items()} == {
        "a": [-1.0, 0.0], "b": [-2.0, -20.0], "c": [0.0, -30.0]
    }  # fmt: skip
    assert {name: pair.quarantine.tolist() for name, pair in pairs.items()} == {
        "a": [0.0, -10.0], "b": [0.0, 0.0], "c": [-3.0, 0.0]
    }  # fmt: skip


def test_the_share_that_is_retained_reaches_the_routing() -> None:
    optimizer = routed(make_pairs(), intervention="erase", space="displacement", retained=0.25)
    assert optimizer.routing.retained == 0.25


def test_quarantine_gradients_are_cleared_as_they_arrive() -> None:
    """So a trainer's own clip, between backward and step, sees the combined gradient once."""
    pairs = make_pairs()
    optimizer = routed(pairs)
    for _ in range(2):  # two micro-batches
        sum(((pair.deployed + pair.quarantine).sum() for pair in pairs.values()), start=torch.zeros(())).backward()
    assert all(pair.quarantine.grad is None for pair in pairs.values())
    assert all((pair.deployed.grad == 2).all() for pair in pairs.values())
    norm = torch.nn.utils.clip_grad_norm_(parameters(pairs), 1.0)
    assert float(norm) == pytest.approx(2 * math.sqrt(sum(r for _, r in SHAPES.values())))
    optimizer.step()
    assert optimizer.diagnostics().grad_norm_pre_clip == pytest.approx(1.0, rel=1e-5)
    # Set by hand, past the hook, they are cleared by the step.
    pairs["a.q"].quarantine.grad = torch.ones(12)
    optimizer.step()
    assert pairs["a.q"].quarantine.grad is None


def test_a_dead_optimizer_clears_nothing() -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    del optimizer
    pairs["a.q"].quarantine.sum().backward()
    assert pairs["a.q"].quarantine.grad is not None


@pytest.mark.parametrize("max_norm", [None, 2.0])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_gradients_are_lent_not_given_away(intervention: str, space: str, max_norm: float | None) -> None:
    """This base writes into the gradients that it is given; neither the caller's nor the record's may be among them."""
    norms = []
    for foreach in (True, False):  # the other one writes into copies of its own
        pairs, head = make_pairs(), nn.Parameter(torch.zeros(3))
        base = torch.optim.SGD([*parameters(pairs), head], lr=0.1, momentum=0.9, nesterov=True, foreach=foreach)
        optimizer = RoutedOptimizer(
            base, pairs, make_basis(), intervention=intervention, space=space, max_norm=max_norm
        )
        take(optimizer, pairs, range(2))
        head.grad = torch.ones(3)
        before = {name: pair.deployed.grad for name, pair in pairs.items()}
        optimizer.step()
        for name, g in gradients(1).items():
            assert pairs[name].deployed.grad is before[name]
            assert torch.equal(before[name], g)
        assert torch.equal(head.grad, torch.ones(3))
        shown = optimizer.diagnostics()
        optimizer.zero_grad(set_to_none=False)
        assert optimizer.diagnostics() == shown
        norms.append((shown.grad_norm_post_clip, shown.hackward_share_gradient))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5, abs=1e-6)


class Multiplying(torch.optim.SGD):
    """Preconditions by a product, as optimizers for matrices do."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_((torch.eye(len(p), dtype=p.dtype) + 0.01) @ p.grad, alpha=0.1)


@pytest.mark.parametrize("casts_to", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("intervention", INTERVENTIONS)
@pytest.mark.parametrize("space", SPACES)
def test_a_step_inside_an_autocast_block_is_the_same_step(
    intervention: str, space: str, dtype: torch.dtype, casts_to: torch.dtype
) -> None:
    """Training loops have theirs there; products would be taken in the half type, and tensors of two not joined."""
    ends = []
    for casts in (False, True):
        pairs = {name: VectorPair(*(nn.Parameter(v.to(dtype)) for v in pair)) for name, pair in make_pairs().items()}
        head = nn.Parameter(torch.zeros(3, dtype=torch.float16))
        with torch.autocast("cpu", casts_to, enabled=casts):
            optimizer = RoutedOptimizer(
                Multiplying([*parameters(pairs), head], lr=0.1), pairs, make_basis().to(dtype=dtype),
                intervention=intervention, space=space, max_norm=2.0,
            )  # fmt: skip
        for step in range(4):
            for name, g in gradients(step).items():
                pairs[name].deployed.grad = g.to(dtype)
            head.grad = torch.ones_like(head)
            with torch.autocast("cpu", casts_to, enabled=casts):
                one = torch.ones(1, 1, 1)
                assert (torch.bmm(one, one).dtype == casts_to) == casts
                optimizer.step()
                shown = optimizer.diagnostics()
                assert torch.is_autocast_enabled("cpu") == casts
        ends.append(({**values(pairs), "head": [head.detach()]}, shown))
    (expected, said), (found, says) = ends
    assert same_bits(expected, found)
    assert says == said


def test_a_closure_is_evaluated_as_the_block_says() -> None:
    pairs, seen = make_pairs(), []
    optimizer = routed(pairs)
    with torch.autocast("cpu", torch.bfloat16):
        optimizer.step(lambda: seen.append(torch.is_autocast_enabled("cpu")))
    assert seen == [True]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("space", SPACES)
def test_none_is_the_plain_optimizer_bit_for_bit(base: str, space: str) -> None:
    pairs, plain = make_pairs(), make_pairs(quarantine=False)
    take(routed(pairs, base, intervention="none", space=space), pairs, range(6))
    take(BASES[base](parameters(plain)), plain, range(6))
    for name, pair in pairs.items():
        assert torch.equal(pair.deployed, plain[name].deployed)
        assert not pair.quarantine.any()


@pytest.mark.parametrize("intervention", ["none", "erase"])
@pytest.mark.parametrize("space", SPACES)
def test_an_unused_quarantine_is_inert(intervention: str, space: str) -> None:
    """With it, without it, and whatever it holds: the same bits, and it never moves."""
    runs = []
    for quarantine in (True, False):
        pairs = make_pairs(quarantine=quarantine)
        optimizer = routed(pairs, "SGD", intervention=intervention, space=space, max_norm=2.0)
        take(optimizer, pairs, range(6))
        runs.append([pair.deployed.detach() for pair in pairs.values()])
        assert all(pair.quarantine is None or not pair.quarantine.any() for pair in pairs.values())
        assert all(pair.quarantine not in optimizer.state for pair in pairs.values())
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("intervention", ["erase", "route"])
def test_a_vector_without_gradient(space: str, intervention: str) -> None:
    """In gradient space it is skipped by everything; elsewhere its update is zero."""
    pairs = make_pairs()
    optimizer = routed(pairs, space=space, intervention=intervention)
    take(optimizer, pairs, range(2))
    before = values(pairs)["a.q"]
    take(optimizer, pairs, range(2, 4), without="a.q")
    assert all(torch.equal(x, y) for x, y in zip(values(pairs)["a.q"], before, strict=True))
    take(optimizer, pairs, range(4, 5))
    assert not torch.equal(pairs["a.q"].deployed, before[0])
    steps = [int(optimizer.state[pairs[name].deployed]["step"]) for name in ("a.q", "b.q")]
    assert steps == [3, 5]


@pytest.mark.parametrize("space", SPACES)
def test_sparse_gradients_of_unrouted_parameters_are_clipped_as_dense_ones_are(space: str) -> None:
    """As an embedding has them; torch sums their duplicates only when asked."""
    tables = []
    for sparse in (True, False):
        pairs, table = make_pairs(), nn.Parameter(torch.zeros(4, 2))
        base = torch.optim.SGD([*parameters(pairs), table], lr=1.0)
        optimizer = RoutedOptimizer(base, pairs, make_basis(), space=space, max_norm=1.0)
        for name, g in gradients(0).items():
            pairs[name].deployed.grad = g
        rows, entries = torch.tensor([[1, 3, 1]]), torch.tensor([[3.0, 0.0], [0.0, 4.0], [3.0, 0.0]])
        grad = torch.sparse_coo_tensor(rows, entries, (4, 2), check_invariants=True)
        table.grad = grad if sparse else grad.to_dense()
        optimizer.step()
        shown = optimizer.diagnostics()
        tables.append((table.detach().clone(), shown.grad_norm_pre_clip, shown.grad_norm_post_clip))
    torch.testing.assert_close(*(table for table, *_ in tables))
    assert tables[0][1:] == pytest.approx(tables[1][1:], rel=1e-6)
    assert tables[0][1] > 1 >= tables[0][2] - 1e-6


def test_unrouted_parameters_are_stepped_and_counted() -> None:
    pairs, head = make_pairs(), nn.Parameter(torch.zeros(3))
    idle = nn.Parameter(torch.ones(2))
    base = torch.optim.SGD([*parameters(pairs), head, idle], lr=1.0)
    optimizer = RoutedOptimizer(base, pairs, make_basis(), space="gradient", max_norm=1.0)
    for name, g in gradients(0).items():
        pairs[name].deployed.grad = g
    head.grad = torch.tensor([0.0, 30.0, 40.0])
    optimizer.step()
    norm = math.sqrt(sum(float((g * g).sum()) for g in gradients(0).values()) + 2500)
    shown = optimizer.diagnostics()
    assert shown.grad_norm_pre_clip == pytest.approx(norm, rel=1e-6)
    assert shown.grad_norm_post_clip == pytest.approx(1.0, rel=1e-6)
    torch.testing.assert_close(head.detach(), -torch.tensor([0.0, 30.0, 40.0]) / norm)
    assert torch.equal(idle, torch.ones(2))
    assert torch.equal(head.grad, torch.tensor([0.0, 30.0, 40.0]))
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": 0.5})
    assert len(optimizer.param_groups) == len(base.param_groups) == 2


def test_a_closure_is_evaluated_once_with_gradients() -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    calls = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (pairs["a.q"].deployed + pairs["a.q"].quarantine).sum()
        loss.backward()
        return float(loss.detach())

    before, loss = values(pairs), float(pairs["a.q"].deployed.detach().sum())
    assert optimizer.step(closure) == pytest.approx(loss)
    assert calls == [True]
    assert not same_bits(before, values(pairs))


def test_schedulers_and_hooks_work() -> None:
    pairs = make_pairs()
    optimizer = routed(pairs, "SGD")
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *_: seen.append("post"))
    optimizer.base.register_step_pre_hook(lambda *_: seen.append("base"))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for step in range(3):
        take(optimizer, pairs, range(step, step + 1))
        scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.1 / 8)
    assert seen == ["pre", "base", "post"] * 3
    optimizer.load_state_dict(optimizer.state_dict())  # base replaces its groups: they must still be shared
    scheduler.step()
    assert optimizer.base.param_groups[0]["lr"] == pytest.approx(0.1 / 16)
    assert optimizer.state is optimizer.base.state
    # Trainers that wrap optimizers assign these, and mean the base's.
    optimizer.state, optimizer.param_groups = optimizer.state, list(optimizer.param_groups)
    optimizer.defaults = {**optimizer.defaults}
    assert optimizer.base.param_groups is optimizer.param_groups
    assert optimizer.base.defaults is optimizer.defaults
    assert "route in displacement space" in repr(optimizer)


def test_refresh_in_displacement_space_splits_everything_again() -> None:
    """The quarantine lies in the span of the new basis at once."""
    pairs = make_pairs()
    start = values(pairs)
    optimizer = routed(pairs, max_norm=1.0)
    take(optimizer, pairs, range(4))
    other = make_basis(seed=7)
    optimizer.refresh(other)
    assert optimizer.basis == other
    take(optimizer, pairs, range(4, 5))
    for name, V in other.items():
        removed = pairs[name].quarantine.detach()
        torch.testing.assert_close(V.T @ (V @ removed), removed)
        assert float((V @ (start[name][0] - pairs[name].deployed.detach())).relu().sum()) < 1e-5
    assert any(pair.quarantine.any() for pair in pairs.values())
    with pytest.raises(UnmatchedNamesError):
        optimizer.refresh(Basis({"nowhere": torch.eye(1, 3)}))
    assert optimizer.basis == other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("space", SPACES)
def test_half_precision_vectors(space: str, dtype: torch.dtype) -> None:
    pairs = {
        name: VectorPair(
            nn.Parameter(pair.deployed.detach().to(dtype)), nn.Parameter(pair.quarantine.detach().to(dtype))
        )
        for name, pair in make_pairs().items()
    }
    base = torch.optim.SGD(parameters(pairs), lr=0.1)
    optimizer = RoutedOptimizer(base, pairs, make_basis().to(dtype=dtype), space=space, max_norm=1.0)
    for name, g in gradients(0).items():
        pairs[name].deployed.grad = g.to(dtype)
    before = values(pairs)
    optimizer.step()
    assert not same_bits(before, values(pairs))
    assert any(pair.quarantine.any() for pair in pairs.values())
    assert optimizer.diagnostics().grad_norm_post_clip == pytest.approx(1.0, rel=4 * torch.finfo(dtype).eps)
