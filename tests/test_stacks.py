"""Vectors of many modules as stacks: every vector in its place, and what does not fit named."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from projected_grpo.errors import DeviceMismatchError, DTypeMismatchError, ShapeMismatchError
from projected_grpo.norms import global_norm, plain_norm, trusted
from projected_grpo.stacks import Layout

LIKE = {"a.q": torch.ones(4), "a.v": torch.ones(3), "b.q": torch.ones(4), "b.v": torch.ones(3, dtype=torch.float64)}


def test_one_stack_for_each_length_and_dtype_and_the_leading_modules_first() -> None:
    vectors = {name: torch.full_like(v, i) for i, (name, v) in enumerate(LIKE.items())}
    layout = Layout(LIKE, leading=["b.q"])
    assert [group.names for group in layout.groups] == [("b.q",), ("a.q",), ("a.v",), ("b.v",)]
    assert [group.names for group in Layout(LIKE).groups] == [("a.q", "b.q"), ("a.v",), ("b.v",)]
    rows = layout.rows(layout.stack(vectors))
    assert list(rows) == layout.names
    assert all(torch.equal(rows[name], v) and rows[name].dtype == v.dtype for name, v in vectors.items())


def test_a_module_without_a_vector_has_zeros() -> None:
    layout = Layout(LIKE)
    rows = layout.rows(layout.stack({"a.q": torch.ones(4)}))
    assert torch.equal(rows["a.q"], torch.ones(4))
    assert not any(rows[name].any() for name in ("a.v", "b.q", "b.v"))
    assert rows["b.v"].dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda v: v[:2], ShapeMismatchError, r"b\.q: the vector is \(2,\), its basis has r = 4"),
        (lambda v: v.double(), DTypeMismatchError, r"b\.q: the vector is torch\.float64 and its basis torch\.float32"),
        (lambda v: v.to("meta"), DeviceMismatchError, r"b\.q: the vector is on meta and its basis on cpu"),
    ],
)
def test_a_vector_that_does_not_fit_is_named(change: Callable[[Tensor], Tensor], error: type, said: str) -> None:
    layout = Layout(LIKE)
    for changed in ({"b.q"}, {"a.q", "b.q"}):  # one that differs from the rest, and all of a stack alike
        vectors = {name: change(v) if name in changed else v for name, v in LIKE.items()}
        with pytest.raises(error, match=said if changed == {"b.q"} else said.replace("b", "[ab]", 1)):
            layout.stack(vectors)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_plain_norm_is_trusted_only_where_it_is_the_global_norm(dtype: torch.dtype) -> None:
    """From one end of the dtype to the other; an untrusted one may be anything."""
    x, seen = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), set()
    largest, smallest = math.log10(torch.finfo(dtype).max), math.log10(torch.finfo(dtype).tiny)
    for exponent in range(int(smallest) + 1, int(largest)):
        scaled = (x * 10.0**exponent / 4).to(dtype)
        plain, careful = plain_norm([scaled], [scaled[0], scaled[:0]]), global_norm([scaled, scaled[0]])
        seen.add(trusted(float(plain)))
        if trusted(float(plain)):
            working = torch.float64 if dtype == torch.float64 else torch.float32
            assert float(plain) == pytest.approx(float(careful), rel=(200 / 2 + 4) * torch.finfo(working).eps)
    assert seen == ({True} if dtype == torch.float16 else {True, False})  # whose squares all fit into float32
    assert not any(trusted(value) for value in (0.0, math.inf, math.nan))


def test_a_plain_norm_of_nothing_is_zero() -> None:
    assert float(plain_norm([])) == 0.0
