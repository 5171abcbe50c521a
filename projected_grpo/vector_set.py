"""One vector of every module, read and written together: all that are deployed, or all that are in quarantine."""

from collections.abc import Mapping, Sequence
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

    def stack_of(self, group: int) -> Tensor:
        """That of one group."""
        return self._layout.groups[group].stack(self.vectors)

    def memory(self, group: int, like: Tensor) -> Memory | None:
        """Where the vectors of a group lie, for who has asked `kernels.serve` whether the loops are to read or write
        values like those (m, r); None where they can't."""
        return self._groups[group].memory(like)

    def write(self, values: Sequence[Tensor | None], *, just_compared: bool = False) -> None:
        """Writes stacks of values to the vectors that there are; nothing where there is no stack.

        just_compared: nobody else has had the vectors since `differences` found them.
        """
        to, rows = list[Tensor](), list[Tensor]()
        for members, value in zip(self._groups, values, strict=False):
            if value is None:
                continue
            if (memory := members.found if just_compared else members.served(value)) is not None:
                memory.write(value)
                continue
            for vector, row in zip(members.vectors, value.unbind(), strict=True):
                if vector is not None:
                    to.append(vector)
                    rows.append(row)
        if to:
            torch._foreach_copy_(to, rows)

    def differences(self, written: Stacks, scratch: Stacks) -> list[bool | Tensor]:
        """One is True, or a number () that is NaN or not zero, where a vector is NaN or isn't what was written.

        Arguments:
            written: (m, r) for each group; the scratch is of the same shapes, and may be written over.

        Raises ShapeMismatchError, DTypeMismatchError or DeviceMismatchError for a vector that was cast or moved.
        """
        found = list[bool | Tensor]()
        for members, value, place in zip(self._groups, written, scratch, strict=True):
            if (memory := members.served(value, closely=True)) is not None:
                found.append(memory.differs(value))
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
        self.found: Memory | None = None  # what `served` or `memory` has returned last

    def served(self, values: Tensor, *, closely: bool = False) -> Memory | None:
        """Where the vectors lie, if `kernels.serve` says that the loops are to compare or write values (m, r) there."""
        if self._V is None or not kernels.serve(self._V, [values]):
            self.found = None  # which may be part of a large one that nobody else needs any more
            return None
        return self.memory(values, closely=closely)

    def memory(self, like: Tensor, *, closely: bool = False) -> Memory | None:
        """Where the vectors lie, if loops can read and write values like those (m, r) there, and are to.

        closely: whether to see, too, that the vectors read their memory as they did. It takes several times as long,
            and is asked for when a step begins, not again within it: what base or its hooks make of a vector's shape,
            strides or dtype in the same memory is seen, and refused, at the next one.
        """
        found = self.found
        if found is None or not found.is_theirs() or (closely and not found.is_read_as_it_was()):
            self.found = Memory.of(self.vectors, like)
        return self.found
