"""How often a program calls torch's operators, which says what it costs without a clock."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = frozenset(
    f"aten::{name}"
    for name in (
        "alias", "as_strided", "detach", "expand", "lift_fresh", "permute", "select", "slice", "squeeze", "t",
        "transpose", "unbind", "unsqueeze", "view",
    )
)  # fmt: skip
"""What sees another tensor's memory; handing a row of a stack to its module is not counted as work on the module."""


def operator_calls(job: Callable[[], object]) -> Counter[str]:
    """Runs the job once and counts the operators that it called, by name, views left out."""
    with _Counting() as counting:
        job()
    return Counter({name: count for name, count in counting.calls.items() if name not in VIEWS})


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.name().partition(".")[0]] += 1
        return func(*args, **(kwargs or {}))
