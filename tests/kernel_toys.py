"""Counting what the compiled loops are asked to do, for the tests of them."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from projected_grpo import kernels

compiled = pytest.mark.skipif(kernels.version() is None, reason="numba is not there")


def counted(
    monkeypatch: pytest.MonkeyPatch, owner: object, *names: str, into: Counter[str] | None = None
) -> Counter[str]:
    """How often each of the functions of a module or a class is called from now on, if not counted `into` another."""
    ran = Counter[str]() if into is None else into

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            ran[name] += 1
            return original(*args, **kwargs)

        return count

    for name in names:
        monkeypatch.setattr(owner, name, counting(name, getattr(owner, name)))
    return ran
