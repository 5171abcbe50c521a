"""What a call does that does not depend on the machine: operator calls, bytes allocated and held, numbers read back.

Seen from between Python and the kernels, by torch's own modes, so on any device and in one run.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Reading a number back makes the host wait for the device; a list of them is read past the operators.
READS = ("aten::_local_scalar_dense", "aten::equal", "Tensor.tolist")
# Tensors that see another's memory: they cost a call, and no kernel.
VIEWS = (
    "aten::unbind", "aten::select", "aten::slice", "aten::view", "aten::_unsafe_view", "aten::unsqueeze",
    "aten::squeeze", "aten::transpose", "aten::t", "aten::expand", "aten::detach", "aten::alias", "aten::permute",
    "aten::as_strided", "aten::_reshape_alias", "aten::lift_fresh",
)  # fmt: skip
# Memory that nothing has been written to yet: held, and neither a kernel nor bytes that move.
EMPTY = ("aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided", "aten::new_empty_strided")


@dataclass(frozen=True)
class Counts:
    """Of one call.

    operators: how often each operator was called, by its name without the overload.
    allocated: bytes of new memory that operators returned.
    peak: the most of them that were held at one time.
    touched: bytes of all tensors that they took and returned, views and empty memory left out; what is written in place
        counts once.
    """

    operators: Counter[str]
    allocated: int
    peak: int
    touched: int

    @property
    def calls(self) -> int:
        """Operator calls that do something: all but views and empty memory."""
        return sum(count for name, count in self.operators.items() if name not in VIEWS + READS + EMPTY)

    @property
    def reads(self) -> int:
        """How often the host waited for a number."""
        return sum(self.operators[name] for name in READS)


def counted(job: Callable[[], object]) -> Counts:
    """Runs the job once and counts; while it is watched, torch computes everything."""
    with _Counting() as counting, _Lists(counting.operators):
        job()
    return Counts(counting.operators, counting.allocated, counting.peak, counting.touched)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.operators: Counter[str] = Counter()
        self.allocated = self.peak = self.touched = 0
        self._held: list[tuple[StorageWeakRef, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().partition(".")[0]
        self.operators[name] += 1
        if name not in VIEWS:
            taken, returned = (_tensors(tree) for tree in ((args, kwargs), result))
            old = {tensor.untyped_storage().data_ptr() for tensor in taken}
            new = [tensor for tensor in returned if tensor.untyped_storage().data_ptr() not in old]
            self._hold(new)
            if name not in EMPTY:
                self.touched += sum(map(_bytes, taken)) + sum(map(_bytes, new))
        return result

    def _hold(self, new: list[Tensor]) -> None:
        self.allocated += sum(map(_bytes, new))
        self._held = [(storage, size) for storage, size in self._held if not _expired(storage)]
        self._held += [(_watched(tensor), _bytes(tensor)) for tensor in new]
        self.peak = max(self.peak, sum(size for _, size in self._held))


class _Lists(TorchFunctionMode):
    def __init__(self, operators: Counter[str]) -> None:
        super().__init__()
        self.operators = operators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operators["Tensor.tolist"] += func is Tensor.tolist
        return func(*args, **(kwargs or {}))


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _watched(tensor: Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _expired(storage: StorageWeakRef) -> bool:
    return bool(storage.expired())  # type: ignore[no-untyped-call]  # torch leaves it untyped
