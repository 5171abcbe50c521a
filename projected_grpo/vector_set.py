"""One vector of every module, read and written together: all that are deployed, or all that are in quarantine."""

from collections.abc import Mapping
from itertools import zip_longest

import torch
from torch import Tensor, nn

from projected_grpo import kernels
from projected_grpo.errors import OutsideWriteError
from projected_grpo.kernels.memory import Memory
from projected_grpo.stacks import Group, Layout, Stacks


class VectorSet:
    """The vectors of one role, as parameters that others read and write too.

    Arguments:
        role: what messages call them.
        vectors: module → parameter (r,); a module may have none, and then counts as zeros that nothing is written to.
        layout: of all modules.
        V: the bases (m, k, r) of the first groups of the layout; the compiled loops serve groups that have one.
    """

    def __init__(self, role: str, vectors: Mapping[str, nn.Parameter], layout: Layout, V: Stacks) -> None:
        self.role = role
        self.vectors = vectors
        self._layout = layout
        self._groups = [_Members(group, vectors, V_of) for group, V_of in zip_longest(layout.groups, V)]

    def stack(self) -> Stacks:
        """Copies of them, (m, r) for each group; see `Layout.stack`."""
        return self._layout.stack(self.vectors)

    def write(self, values: Stacks) -> None:
        """Writes stacks of values to the vectors that there are; nothing where there are no stacks."""
        to, rows = list[Tensor](), list[Tensor]()
        for members, value in zip(self._groups, values, strict=False):
            if (memory := members.memory(value)) is not None:
                memory.write(value)
                continue
            for vector, row in zip(members.vectors, value.unbind(), strict=True):
                if vector is not None:
                    to.append(vector)
                    rows.append(row)
        if to:
            torch._foreach_copy_(to, rows)

    def differences(self, written: Stacks, scratch: Stacks) -> list[Tensor]:
        """Numbers () of which one is NaN or not zero where a vector isn't what was written, or is NaN.

        Arguments:
            written: (m, r) for each group; the scratch is of the same shapes, and may be written over.

        Raises ShapeMismatchError, DTypeMismatchError or DeviceMismatchError for a vector that was cast or moved.
        """
        found = []
        for members, value, place in zip(self._groups, written, scratch, strict=True):
            if (memory := members.memory(value, closely=True)) is not None:
                found.append(value.new_tensor(memory.differs(value)))
            else:
                # The extremes of the difference: on a CPU a third of the time of a comparison entry by entry.
                found += torch.aminmax(torch.sub(value, members.group.stack(self.vectors, place), out=place))
        return found

    def check_untouched(self, written: Stacks) -> None:
        """Refuses vectors that the next step would overwrite although they aren't what the last one wrote; NaN equals
        NaN.

        Raises:
            OutsideWriteError: names the first such vector.
        """
        for name, value in self._layout.rows(written).items() if written else ():
            now = self.vectors[name]
            kind = (now.shape, now.dtype, now.device) == (value.shape, value.dtype, value.device)
            if not kind or not torch.allclose(value, now, rtol=0, atol=0, equal_nan=True):
                raise OutsideWriteError(
                    f"{name}: something other than the optimizer has changed, cast or moved the {self.role} vector "
                    "since its last step or the state that was loaded, and the next step would undo that; load the "
                    "vectors and the optimizer's state of one checkpoint, or build a new optimizer on the vectors as "
                    "they are."
                )


class _Members:
    """The vectors of one group, and where they lie."""

    def __init__(self, group: Group, vectors: Mapping[str, nn.Parameter], V: Tensor | None) -> None:
        self.group = group
        self.vectors = [vectors.get(name) for name in group.names]
        self._V = V
        self._memory: Memory | None = None

    def memory(self, values: Tensor, *, closely: bool = False) -> Memory | None:
        """Where the vectors lie, if the loops are to compare them with values (m, r) or write these to them.

        closely: whether to see, too, that the vectors read their memory as they did. It takes several times as long,
            and is asked for when others have had the vectors, not again within a step: what base or its hooks make of a
            quarantine vector's shape is seen, and refused, at the next one.
        """
        if self._V is None or not kernels.serve(self._V, [values]):
            self._memory = None  # which may be part of a large one that nobody else needs any more
            return None
        found = self._memory
        if found is None or not found.is_theirs() or (closely and not found.is_read_as_it_was()):
            self._memory = Memory.of(self.vectors, values)
        return self._memory
