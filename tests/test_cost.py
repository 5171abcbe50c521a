"""What a routed step does, in operator calls, bytes and reads: the same on every machine, and held by these numbers.

Calls are those of one group of modules, of one length and dtype. A number may fall; one that rises, or that grows with
the number of modules, has to be explained.
"""

from itertools import product

import pytest
import torch
from routed_toys import INTERVENTIONS, SPACES

from projected_grpo.bench.baselines import split_by_loop
from projected_grpo.bench.counts import Counts, counted
from projected_grpo.bench.setting import make_basis, make_gradients, make_vectors
from projected_grpo.bench.shapes import Module
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.split import GroupedSplit
from projected_grpo.split_statistics import split_statistics
from projected_grpo.vectors import VectorPair

R, K, FEW, MANY = 16, 3, 10, 40
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
# space, intervention -> calls of a step and of its diagnostics, and bytes of a step for each byte of a set of vectors.
BOUNDS = {
    ("gradient", "none"): (25, 30, 12), ("gradient", "erase"): (31, 30, 27), ("gradient", "route"): (32, 30, 34),
    ("update", "none"): (25, 30, 12), ("update", "erase"): (40, 33, 40), ("update", "route"): (44, 28, 49),
    ("displacement", "none"): (25, 30, 12), ("displacement", "erase"): (40, 33, 40),
    ("displacement", "route"): (44, 28, 47),
}  # fmt: skip
PEAK = 8  # bytes held at most during a step for each byte of a set of vectors, whatever the space


def modules(count: int) -> list[Module]:
    return [Module(f"module.{i}", R, R) for i in range(count)]


def step_and_diagnostics(count: int, space: str, intervention: str) -> tuple[Counts, Counts]:
    """Of the second step, around an optimizer that takes all parameters in one call, with a clip that fires."""
    basis, g = make_basis(modules(count), K, **CPU), make_gradients(modules(count), **CPU)
    deployed, quarantine = make_vectors(g), make_vectors(g)
    base = torch.optim.SGD([*deployed.values(), *quarantine.values()], lr=0.1, foreach=True)
    pairs = {name: VectorPair(vector, quarantine[name]) for name, vector in deployed.items()}
    optimizer = RoutedOptimizer(base, pairs, basis, space=space, intervention=intervention, max_norm=1e-3)
    optimizer.step()
    return counted(optimizer.step), counted(optimizer.diagnostics)


@pytest.mark.parametrize(("space", "intervention"), list(product(SPACES, INTERVENTIONS)))
def test_a_step_and_its_diagnostics_cost_what_they_did_however_many_modules_there_are(
    space: str, intervention: str
) -> None:
    few, many = (step_and_diagnostics(count, space, intervention) for count in (FEW, MANY))
    calls, looks, touched = BOUNDS[space, intervention]
    for small, large, bound in zip(few, many, (calls, looks), strict=True):
        assert small.operators == large.operators
        assert small.calls <= bound
        assert small.reads == 1  # and so one synchronisation on a device
    vectors = MANY * R * 4  # bytes of one set
    assert many[0].touched <= touched * vectors
    assert many[0].peak <= PEAK * vectors
    assert many[0].peak > 0


def test_the_split_costs_the_same_calls_for_any_number_of_modules_and_the_loop_does_not() -> None:
    def of(count: int) -> tuple[Counts, Counts, Counts]:
        basis, g = make_basis(modules(count), K, **CPU), make_gradients(modules(count), **CPU)
        split = GroupedSplit(basis)
        result = split(g)
        split_statistics(split, result)  # once, for what it computes once
        return (
            counted(lambda: split(g)),
            counted(lambda: split_statistics(split, result)),
            counted(lambda: split_by_loop(g, basis)),
        )

    (split, statistics, loop), (large, more, longer) = of(FEW), of(MANY)
    assert split.operators == large.operators
    assert split.calls <= 6
    assert split.reads == 0
    assert statistics.operators == more.operators
    assert statistics.calls <= 22
    assert statistics.reads == 1
    assert longer.calls == loop.calls * MANY / FEW
    # V twice, g five times, removed four, kept once, and the coefficients, which are as good as nothing.
    assert large.touched <= (2 * K + 10) * MANY * R * 4
    assert more.operators["aten::linalg_vector_norm"] == 3  # of the rows of g, of these, of coefficients; not of parts


def test_calls_bytes_and_reads_are_counted() -> None:
    x = torch.ones(8)

    def job() -> None:
        y = x + 1  # 32 bytes taken and 32 allocated
        del y
        z = (x * 2).view(2, 4)
        z.add_(1)
        assert z.sum().item() == 24
        assert z.tolist()[0][0] == 3

    found = counted(job)
    assert found.calls == 4
    assert found.reads == 2
    assert (found.allocated, found.peak) == (32 + 32 + 4, 32 + 4)
    assert found.touched == 64 + 64 + 32 + 36 + 4  # the last is the number that is read back
