"""Vectors read and written as a set: the same by torch and where they lie, and never where they no longer are."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from kernel_toys import compiled, counted
from routed_toys import gradients, make_pairs, routed, same_bits, take, values
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from projected_grpo import progress
from projected_grpo.errors import InterruptedStepError, OutsideWriteError, ProjectedGRPOError
from projected_grpo.kernels import use_kernels
from projected_grpo.kernels.memory import Memory
from projected_grpo.stacks import Layout, Stacks
from projected_grpo.vector_set import VectorSet

COVERED = {"a": 5, "b": 5, "c": 3}  # r of modules that have rows; d has none
MODULES = {**COVERED, "d": 5}


@pytest.fixture(params=["off", pytest.param("on", marks=compiled)])
def choice(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_kernels(request.param):
        yield request.param


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often vectors were compared or written where they lie."""
    return counted(monkeypatch, Memory, "differs", "write", "tell")


def vector_set(dtype: torch.dtype = torch.float32, missing: str = "") -> VectorSet:
    vectors = {name: nn.Parameter(torch.zeros(r, dtype=dtype)) for name, r in MODULES.items()}
    layout = Layout(vectors, leading=COVERED)
    V = [torch.ones(len(group.names), 2, group.r, dtype=dtype) for group in layout.groups[:2]]
    return VectorSet("deployed", {name: v for name, v in vectors.items() if name != missing}, layout, V)


def drawn(like: VectorSet, seed: int = 0) -> Stacks:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(stack.shape, generator=generator).to(stack.dtype) for stack in like.stack()]


def write(vectors: VectorSet, values: Stacks) -> None:
    with torch.no_grad():
        vectors.write(values)


def differ(vectors: VectorSet, values: Stacks) -> bool:
    with torch.no_grad():
        found = vectors.differences(values, [torch.empty_like(value) for value in values])
    assert all(isinstance(number, bool) or number.shape == () for number in found)
    return any(float(number) != 0 for number in found)


def served(choice: str, calls: Counter[str], name: str) -> bool:
    """Whether the loops did it for the two groups that have rows, if they were to."""
    return calls[name] == 2 if choice == "on" else not calls


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_written_is_read_back_and_any_change_is_seen(
    choice: str, dtype: torch.dtype, calls: Counter[str]
) -> None:
    vectors = vector_set(dtype)
    values = drawn(vectors)
    versions = {name: vector._version for name, vector in vectors.vectors.items()}
    write(vectors, values)
    assert served(choice, calls, "write")
    assert all(torch.equal(a, b) for a, b in zip(vectors.stack(), values, strict=True))
    assert all(vector._version == versions[name] + 1 for name, vector in vectors.vectors.items())
    calls.clear()
    assert not differ(vectors, values)
    assert served(choice, calls, "differs")
    for name, vector in vectors.vectors.items():
        for changed in (torch.nextafter(vector.data[1], torch.tensor(9, dtype=dtype)), float("nan")):
            kept = vector.data[1].clone()
            vector.data[1] = changed
            assert differ(vectors, values), name
            vector.data[1] = kept
    assert not differ(vectors, values)


def test_autograd_is_told_of_a_write(choice: str) -> None:
    vectors = vector_set()
    product = vectors.vectors["a"].square().sum()
    write(vectors, drawn(vectors))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_a_module_without_a_vector_is_zero_and_its_group_is_torchs(choice: str, calls: Counter[str]) -> None:
    vectors = vector_set(missing="b")
    values = drawn(vectors)
    write(vectors, values)
    assert calls["write"] == (choice == "on")  # of c alone
    for name, value in zip(("a", "b", "c", "d"), (row for stack in values for row in stack), strict=True):
        if name != "b":
            assert torch.equal(vectors.vectors[name].detach(), value)
    assert not vectors.stack()[0][1].any()


def test_other_memory_is_found_and_the_old_is_left_alone(choice: str, calls: Counter[str]) -> None:
    vectors = vector_set()
    write(vectors, drawn(vectors))
    old = {name: vector.data for name, vector in vectors.vectors.items()}
    was = {name: value.clone() for name, value in old.items()}
    for name, vector in vectors.vectors.items():
        vector.data = old[name].clone()
    assert not differ(vectors, drawn(vectors))
    for vector in vectors.vectors.values():
        vector.data = vector.data.clone()
    write(vectors, drawn(vectors, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(vectors.stack(), drawn(vectors, seed=1), strict=True))
    assert all(torch.equal(old[name], was[name]) for name in old)
    assert calls["write"] == (4 if choice == "on" else 0)


def test_memory_is_kept_for_as_long_as_it_is_written_to_by_address() -> None:
    """Else another tensor could get the address, and an old vector be taken for it."""
    vector = nn.Parameter(torch.zeros(7))
    memory = Memory.of([vector], torch.empty(1, 7))
    storage = vector.untyped_storage()._weak_ref()
    vector.data = torch.zeros(7)
    assert memory is not None
    assert not memory.is_theirs()
    assert not torch.UntypedStorage._expired(storage)
    del memory
    assert torch.UntypedStorage._expired(storage)
    torch.UntypedStorage._free_weak_ref(storage)


def test_vectors_that_share_an_address_are_torchs() -> None:
    first, second = (nn.Parameter(torch.zeros(7)) for _ in range(2))
    assert Memory.of([first, second], torch.empty(2, 7)) is not None
    second.data = first.data
    assert Memory.of([first, second], torch.empty(2, 7)) is None


def _shorter(x: Tensor) -> Tensor:
    return x[:2]


def _of_another_kind(x: Tensor) -> Tensor:
    return x.view(torch.int32)


def _as_a_row(x: Tensor) -> Tensor:
    return x.view(1, -1)


def _as_a_column(x: Tensor) -> Tensor:
    return x.view(-1, 1)


@pytest.mark.parametrize("how", [_shorter, _of_another_kind, _as_a_row, _as_a_column, Tensor.double, Tensor.half])
def test_a_vector_that_was_cast_is_refused_wherever_it_lies(choice: str, how: Callable[[Tensor], Tensor]) -> None:
    vectors = vector_set()
    values = drawn(vectors)
    write(vectors, values)
    vector = vectors.vectors["b"]
    vector.requires_grad_(requires_grad=False).data = how(vector.data)
    with pytest.raises(ProjectedGRPOError, match="b: the vector is"):
        differ(vectors, values)
    with pytest.raises(OutsideWriteError, match=r"^b: .* the deployed vector"):
        vectors.check_untouched(values)


def test_a_vector_that_is_read_in_another_order_is_not_what_was_written(choice: str) -> None:
    vectors = vector_set()
    values = drawn(vectors)
    write(vectors, values)
    vector = vectors.vectors["b"]
    vector.data = vector.data.as_strided(vector.shape, (0,))
    assert differ(vectors, values)
    with pytest.raises(RuntimeError, match="single memory location"):
        write(vectors, values)


@pytest.mark.parametrize("how", [torch._neg_view, lambda x: torch._efficientzerotensor(x.shape)])
def test_a_vector_that_is_read_with_another_sign_or_as_nothing_is_not_what_was_written(
    choice: str, how: Callable[[Tensor], Tensor]
) -> None:
    vectors = vector_set()
    values = drawn(vectors)
    write(vectors, values)
    vectors.vectors["b"].data = how(vectors.vectors["b"].data)
    assert differ(vectors, values)


def test_a_default_device_is_for_new_tensors_alone(choice: str) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    for each in range(3):
        for name, g in gradients(each).items():
            pairs[name].deployed.grad = g
        with torch.device("meta"):
            optimizer.step()
    assert optimizer.diagnostics().cos_pre is not None


class Watching(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.name()] += 1
        return func(*args, **(kwargs or {}))


@compiled
def test_whoever_watches_torch_sees_what_is_written(calls: Counter[str]) -> None:
    vectors = vector_set()
    values = drawn(vectors)
    with use_kernels("on"), Watching() as mode:
        write(vectors, values)
        assert not differ(vectors, values)
    assert not calls
    assert mode.seen["aten::_foreach_copy_"] == 1


@compiled
def test_vectors_that_keep_no_version_are_torchs(calls: Counter[str]) -> None:
    with torch.inference_mode():
        vectors = vector_set()
    with use_kernels("on"), torch.inference_mode():
        vectors.write(drawn(vectors))
    assert not calls
    ordinary = vector_set()
    with use_kernels("on"), torch.inference_mode():
        ordinary.write(values := [value.clone() for value in drawn(ordinary)])
        assert all(torch.equal(a, b) for a, b in zip(ordinary.stack(), values, strict=True))


@compiled
def test_a_step_compares_and_writes_where_the_vectors_lie(calls: Counter[str]) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    with use_kernels("on"):
        take(optimizer, pairs, range(1))
        calls.clear()
        take(optimizer, pairs, range(1, 2))
    groups = len(optimizer._split.V)
    assert calls == {"differs": 2 * groups, "write": groups, "tell": 3 * groups}


def _its_first_entry(x: Tensor) -> Tensor:
    return x.as_strided(x.shape, (0,))


@compiled
@pytest.mark.parametrize(
    ("role", "how"), [("quarantine", _shorter), ("quarantine", _its_first_entry), ("deployed", _its_first_entry)]
)
def test_what_base_makes_of_a_vector_in_its_place_is_refused_at_the_next_step(
    role: str, how: Callable[[Tensor], Tensor]
) -> None:
    """In the step it is not looked at, for that would be done three times."""
    pairs = make_pairs()
    optimizer = routed(pairs)
    vector = getattr(pairs["a.q"], role)
    with use_kernels("on"):
        take(optimizer, pairs, range(2))
        changing = optimizer.base.register_step_post_hook(lambda *_: setattr(vector, "data", how(vector.data)))
        take(optimizer, pairs, range(2, 3))
        changing.remove()
        for name, g in gradients(3).items():
            pairs[name].deployed.grad = g
        with pytest.raises(OutsideWriteError, match=rf"a\.q: .* the {role} vector"):
            optimizer.step()


@compiled
@pytest.mark.parametrize("role", ["deployed", "quarantine"])
def test_base_may_give_a_vector_other_memory(role: str, calls: Counter[str]) -> None:
    found = []
    for gives in (False, True):
        pairs = make_pairs()
        optimizer = routed(pairs)
        vectors = [getattr(pair, role) for pair in pairs.values()]

        def give(*_: Any, vectors: list[nn.Parameter] = vectors) -> None:
            for vector in vectors:
                vector.data = vector.data.clone()

        if gives:
            optimizer.base.register_step_post_hook(give)
        calls.clear()
        with use_kernels("on"):
            take(optimizer, pairs, range(4))
        found.append((values(pairs), dict(calls)))
    (usual, counts), (given, with_gifts) = found
    assert same_bits(usual, given)
    assert counts == with_gifts


@compiled
def test_a_step_that_is_interrupted_between_two_groups_has_written_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = make_pairs()
    optimizer = routed(pairs)
    assert len(optimizer._split.V) > 1
    moves = [progress.move, None]  # the second is no function

    with use_kernels("on"):
        take(optimizer, pairs, range(2))
        before = values(pairs)
        monkeypatch.setattr(progress, "move", lambda *args, **kwargs: moves.pop(0)(*args, **kwargs))
        with pytest.raises(TypeError):
            take(optimizer, pairs, range(2, 3))
    assert not moves
    assert same_bits(values(pairs), before)
    with pytest.raises(InterruptedStepError):
        optimizer.step()
