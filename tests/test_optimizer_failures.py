"""What a routed step refuses halfway through training, and what a failure leaves behind: all of it, or a clear no."""

import copy
import io
import math
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from routed_toys import (
    INTERVENTIONS,
    SPACES,
    Pairs,
    gradients,
    load,
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
from projected_grpo.errors import (
    InterruptedStepError,
    NonFiniteGradientError,
    NotCopyableError,
    OutsideWriteError,
)
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.split import SplitRule
from projected_grpo.vectors import VectorPair

# Gradients that are not finite


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_gradients_change_nothing(space: str, bad: float) -> None:
    pairs, twin = make_pairs(), make_pairs()
    optimizer, other = routed(pairs, space=space), routed(twin, space=space)
    take(optimizer, pairs, range(2))
    take(other, twin, range(2))
    before, poisoned = values(pairs), gradients(2)
    poisoned["a.v"][3] = bad
    for name, g in poisoned.items():
        pairs[name].deployed.grad = g
    with pytest.raises(NonFiniteGradientError, match=r"a\.v: 1 of 7 entries"):
        optimizer.step()
    assert same_bits(before, values(pairs))
    assert pairs["a.q"].deployed.grad is poisoned["a.q"]
    take(optimizer, pairs, range(3, 5))  # and it goes on as if nothing had been
    take(other, twin, range(3, 5))
    assert same_bits(values(pairs), values(twin))


def test_non_finite_gradients_of_unrouted_parameters() -> None:
    pairs, head = make_pairs(), nn.Parameter(torch.zeros(2))
    optimizer = RoutedOptimizer(torch.optim.SGD([*parameters(pairs), head]), pairs, make_basis())
    head.grad = torch.tensor([math.nan, 1.0])
    with pytest.raises(NonFiniteGradientError, match="unrouted parameter 0: 1 of 2"):
        optimizer.step()


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize(
    ("space", "clip"),
    [(space, "before") for space in SPACES] + [("gradient", clip) for clip in ("joint", "separate", "deployed_only")],
)
def test_a_norm_that_overflows_is_refused(space: str, clip: str, max_norm: float | None) -> None:
    """Every entry is finite; a limit divided by an infinite norm would be a factor of 0, and a step that vanishes."""
    pair = VectorPair(*(nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)))
    basis = Basis({"q": torch.eye(1, 2, dtype=torch.float64)})
    base = torch.optim.SGD([*pair], lr=1.0)
    optimizer = RoutedOptimizer(base, {"q": pair}, basis, space=space, clip=clip, max_norm=max_norm)
    pair.deployed.grad = torch.tensor([1e308, 1.7e308], dtype=torch.float64)
    with pytest.raises(NonFiniteGradientError, match=r"Every gradient is finite, but the norm of all .* overflows"):
        optimizer.step()
    assert not pair.deployed.any()
    pair.deployed.grad = torch.tensor([1e307, 1.7e307], dtype=torch.float64)
    optimizer.step()
    assert pair.deployed.any()


@pytest.mark.parametrize("clip", ["joint", "separate"])
def test_parts_whose_norm_overflows_are_refused(clip: str) -> None:
    """The gradient's norm is finite, and so is every entry of both parts."""
    pair = VectorPair(*(nn.Parameter(torch.zeros(3, dtype=torch.float64)) for _ in range(2)))
    basis, g = (
        Basis({"q": torch.eye(2, 3, dtype=torch.float64)}),
        torch.tensor([1e308, 1e308, 0.0], dtype=torch.float64),
    )
    optimizer = RoutedOptimizer(
        torch.optim.SGD([*pair], lr=1.0), {"q": pair}, basis, space="gradient", clip=clip, max_norm=1.0,
        rule=SplitRule(overshoot=1.5),
    )  # fmt: skip
    pair.deployed.grad = g
    with pytest.raises(NonFiniteGradientError, match="or of their parts after the split, overflows"):
        optimizer.step()
    assert not any(vector.any() for vector in pair)


# A base that fails


class Tripping(torch.optim.SGD):
    """Fails at the end of a step, once armed, when momenta and parameters have moved."""

    armed = False

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        if self.armed:
            raise RuntimeError("out of memory")


class Scribbling(torch.optim.SGD):
    """Writes into all that it holds, asked to or not, and fails."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.fill_(7.0)
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(("space", "intervention"), list(product(SPACES, INTERVENTIONS)))
def test_a_base_that_raises_leaves_both_vectors_whatever_it_wrote(space: str, intervention: str) -> None:
    pairs = make_pairs()
    optimizer = RoutedOptimizer(
        Scribbling(parameters(pairs), lr=0.1), pairs, make_basis(), space=space, intervention=intervention
    )
    before = values(pairs)
    with pytest.raises(RuntimeError, match="out of memory"):
        take(optimizer, pairs, range(1))
    assert same_bits(before, values(pairs))


@pytest.mark.parametrize("space", SPACES)
def test_a_base_that_raises_leaves_vectors_and_gradients_and_is_not_stepped_again(space: str) -> None:
    """Its momenta have counted a step that nobody took, so only a checkpoint leads on, and bit for bit."""
    runs = []
    for fails in (True, False):
        pairs, head = make_pairs(), nn.Parameter(torch.zeros(2))
        base = Tripping([*parameters(pairs), head], lr=0.1, momentum=0.9)
        optimizer = RoutedOptimizer(base, pairs, make_basis(), space=space, max_norm=0.5)
        take(optimizer, pairs, range(2))
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        saved = values(pairs), head.detach().clone()
        if fails:
            base.armed = True
            head.grad = torch.ones(2)
            with pytest.raises(RuntimeError, match="out of memory"):
                take(optimizer, pairs, range(2, 3))
            assert same_bits(saved[0], values(pairs))
            assert all(torch.equal(pairs[name].deployed.grad, g) for name, g in gradients(2).items())
            base.armed = False
            for use in (optimizer.step, optimizer.state_dict):
                with pytest.raises(InterruptedStepError, match=r"failed inside Tripping.step\(\).*load a checkpoint"):
                    use()
            file.seek(0)
            load(pairs, saved[0])
            head.data.copy_(saved[1])
            optimizer.load_state_dict(torch.load(file, weights_only=True))
        take(optimizer, pairs, range(2, 5))
        runs.append(values(pairs))
    assert same_bits(*runs)


def test_a_step_that_is_interrupted_by_hand_leaves_no_half_of_it_either() -> None:
    class Stopped(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            raise KeyboardInterrupt

    pairs = make_pairs()
    before, optimizer = values(pairs), RoutedOptimizer(Stopped(parameters(pairs), lr=0.1), pairs, make_basis())
    with pytest.raises(KeyboardInterrupt):
        take(optimizer, pairs, range(1))
    assert same_bits(before, values(pairs))
    with pytest.raises(InterruptedStepError):
        optimizer.step()


# Writes from outside


def _fill(vector: Tensor) -> None:
    with torch.no_grad():
        vector.fill_(7.0)


def _behind_autograds_back(vector: Tensor) -> None:
    vector.data[0] += 1e-6


@pytest.mark.parametrize("write", [_fill, _behind_autograds_back])
@pytest.mark.parametrize("role", ["deployed", "quarantine"])
@pytest.mark.parametrize("space", ["update", "displacement"])
def test_outside_writes_are_refused_where_they_would_be_undone(
    space: str, role: str, write: Callable[[Tensor], None]
) -> None:
    pairs, twin = make_pairs(), make_pairs()
    optimizer, other = routed(pairs, space=space), routed(twin, space=space)
    write(pairs["b.plain"].deployed)  # before the first step it is where training starts
    write(twin["b.plain"].deployed)
    take(optimizer, pairs, range(2))
    take(other, twin, range(2))
    before = values(pairs)
    write(getattr(pairs["a.v"], role))
    changed = values(pairs)
    for _ in range(2):
        with pytest.raises(OutsideWriteError, match=f"a.v: .* moved the {role} vector since .* load the vectors and"):
            take(optimizer, pairs, range(2, 3))
        assert same_bits(changed, values(pairs))
    load(pairs, before)  # an average that is swapped in for an evaluation, and out again
    take(optimizer, pairs, range(2, 4))
    take(other, twin, range(2, 4))
    assert same_bits(values(pairs), values(twin))


def test_vectors_that_were_cast_are_refused_too() -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    take(optimizer, pairs, range(1))
    optimizer.zero_grad()
    for vector in parameters(pairs):
        vector.data = vector.data.double()
    with pytest.raises(OutsideWriteError, match=r"a\.q: .* changed, cast or moved the deployed vector"):
        optimizer.step()


def test_outside_writes_are_fine_where_the_base_moves_the_vectors_themselves() -> None:
    for options in ({"space": "gradient"}, {"intervention": "none"}):
        pairs = make_pairs()
        optimizer = routed(pairs, **options)
        take(optimizer, pairs, range(1))
        _fill(pairs["a.v"].deployed)
        take(optimizer, pairs, range(1, 2))
        assert float((pairs["a.v"].deployed.detach() - 7).abs().max()) < 1
    pairs = make_pairs()  # and under erase nothing is ever written to the quarantine
    optimizer = routed(pairs, intervention="erase")
    take(optimizer, pairs, range(1))
    _fill(pairs["a.v"].quarantine)
    take(optimizer, pairs, range(1, 2))
    assert (pairs["a.v"].quarantine == 7).all()


@pytest.mark.parametrize("first", ["vectors", "optimizer"])
@pytest.mark.parametrize("space", ["update", "displacement"])
def test_a_loaded_state_wants_its_own_vectors_loaded_before_or_after(space: str, first: str) -> None:
    def saved_after(steps: int) -> tuple[dict[str, list[Tensor]], dict[str, Any]]:
        pairs = make_pairs()
        optimizer = routed(pairs, space=space)
        take(optimizer, pairs, range(steps))
        return values(pairs), optimizer.state_dict()

    def resumed(vectors: dict[str, list[Tensor]], state: dict[str, Any]) -> Pairs:
        pairs = make_pairs()
        optimizer = routed(pairs, space=space)
        if first == "vectors":
            load(pairs, vectors)
        optimizer.load_state_dict(state)
        if first == "optimizer":
            load(pairs, vectors)
        take(optimizer, pairs, range(3, 4))
        return pairs

    (vectors, state), (others, _) = saved_after(3), saved_after(2)
    assert same_bits(values(resumed(vectors, state)), saved_after(4)[0])
    with pytest.raises(OutsideWriteError, match=r"a\.q: .* or the state that was loaded"):
        resumed(others, state)
    fresh = saved_after(0)  # of an optimizer that has not stepped yet: training starts wherever the vectors are
    assert not same_bits(values(resumed(vectors, fresh[1])), vectors)


# Copies


def test_copies_and_pickles_are_refused() -> None:
    optimizer = routed(make_pairs())
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(NotCopyableError, match=r"RoutedOptimizer can't be copied .* save its state_dict\(\)"):
            duplicate(optimizer)


@pytest.mark.parametrize("how", ["deepcopy", "torch.save"])
def test_a_copied_model_keeps_its_own_gradients(how: str) -> None:
    """The hooks that drop the quarantine's gradients stay with the parameters that the optimizer holds."""
    pairs = make_pairs()
    model = nn.ParameterDict({"deployed": pairs["a.q"].deployed, "quarantine": pairs["a.q"].quarantine})
    optimizer = routed(pairs)
    if how == "deepcopy":
        twin = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    for module in (model, twin):
        (module["deployed"] + module["quarantine"]).sum().backward()
    assert torch.equal(twin["quarantine"].grad, twin["deployed"].grad)
    assert model["quarantine"].grad is None
    assert torch.equal(model["deployed"].grad, torch.ones(12))
    optimizer.step()
    assert not twin["quarantine"].any()


def test_a_small_write_from_outside_is_seen_beside_a_coarser_dtype() -> None:
    """A difference that is none in float16 is one in the float32 that it is of."""
    dtypes = {"coarse": torch.float16, "fine": torch.float32}
    pairs = {n: VectorPair(*(nn.Parameter(torch.zeros(4, dtype=d)) for _ in range(2))) for n, d in dtypes.items()}
    V = torch.eye(4, dtype=torch.float16)[:1]
    base = torch.optim.SGD([vector for pair in pairs.values() for vector in pair], lr=0.1)
    optimizer = RoutedOptimizer(base, pairs, Basis({"coarse": V}), space="displacement")
    for step in range(2):
        for pair in pairs.values():
            pair.deployed.grad = torch.ones_like(pair.deployed)
        if step:
            with torch.no_grad():
                pairs["fine"].quarantine[2] += 1e-9
            with pytest.raises(OutsideWriteError, match=r"fine: .* moved the quarantine vector"):
                optimizer.step()
        else:
            optimizer.step()
