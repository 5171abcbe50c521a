"""What routing costs, as a pytest-benchmark suite: the parts of `projected-grpo bench` that revisions are compared by.

    make bench                       this checkout
    make bench-compare BASE=main     that revision and this checkout, in one job, one after the other and back

Nothing here fails by a time: `tests/test_cost.py` holds what does not depend on the machine.
"""

from collections.abc import Iterator

import pytest
import torch

from projected_grpo.bench.baselines import split_by_loop, split_by_loop_with_statistics
from projected_grpo.bench.setting import make_basis, make_gradients, make_vectors
from projected_grpo.bench.shapes import preset
from projected_grpo.optimizer import RoutedOptimizer
from projected_grpo.split import GroupedSplit
from projected_grpo.vectors import VectorPair

MODULES = preset("Qwen3-4B").modules()
PLACE = {"device": torch.device("cpu"), "dtype": torch.float32}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[5, 12], ids="k={}".format)
def inputs(request):
    return make_basis(MODULES, request.param, **PLACE), make_gradients(MODULES, **PLACE)


@pytest.mark.benchmark(group="split")
def test_split(benchmark, inputs):
    basis, g = inputs
    split = GroupedSplit(basis)
    split(g)  # which compiles the loops; the number of rounds goes by the first call that is timed
    benchmark(split, g)


@pytest.mark.benchmark(group="split")
@pytest.mark.parametrize("loop", [split_by_loop, split_by_loop_with_statistics])
def test_split_by_a_loop(benchmark, inputs, loop):
    basis, g = inputs
    benchmark(loop, g, basis)


@pytest.mark.benchmark(group="step")
@pytest.mark.parametrize("space", ["gradient", "update", "displacement"])
@pytest.mark.parametrize("looked_at", [False, True], ids=["", "diagnostics"])
def test_step(benchmark, inputs, space, looked_at):
    basis, g = inputs
    deployed, quarantine = make_vectors(g), make_vectors(g)
    base = torch.optim.AdamW([*deployed.values(), *quarantine.values()], lr=1e-4, fused=True)
    pairs = {name: VectorPair(vector, quarantine[name]) for name, vector in deployed.items()}
    optimizer = RoutedOptimizer(base, pairs, basis, space=space, max_norm=0.5)

    def step():
        optimizer.step()
        if looked_at:
            optimizer.diagnostics()

    step()
    benchmark(step)


@pytest.mark.benchmark(group="step")
@pytest.mark.parametrize("path", [{}, {"foreach": True}, {"fused": True}], ids=["as built", "foreach", "fused"])
def test_step_without_routing(benchmark, path):
    parameters = [*make_vectors(make_gradients(MODULES, **PLACE)).values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, **path)

    def step():
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()

    benchmark(step)
