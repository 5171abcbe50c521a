"""Vectors of many modules, compared and written where they lie: by torch it is a call for each, of a microsecond."""

from collections.abc import Sequence

import torch
from torch import Tensor

from projected_grpo import kernels


class Memory:
    """Where m vectors (r,) lie, of which the loops know the addresses alone.

    Others may give a vector other memory at any time, by a cast, a move or `.data =`, and nobody is told. So
    addresses are compared with those that the vectors have now before each use (`is_theirs`), and nothing is read or
    written where no vector lies. This object holds on to the old memory, so that a vector whose `.data` was replaced
    never gets the same address again by chance, perhaps with fewer entries.

    Arguments:
        vectors: see `of`, which says whether the loops can read them.
    """

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        self._vectors = vectors
        self._held = [vector.detach() for vector in vectors]
        self._read = _read(vectors)
        self._addresses = _addresses(vectors)
        # Named, for a default device may be another.
        self._array = torch.tensor(self._addresses, dtype=torch.int64, device="cpu").numpy()

    @classmethod
    def of(cls, vectors: Sequence[Tensor | None], like: Tensor) -> "Memory | None":
        """That of vectors whose values are like those (m, r), which `serve` has said yes to; None where one is missing,
        is otherwise, or keeps no version that autograd could be told."""
        placed = [vector for vector in vectors if vector is not None and kernels.is_plain(vector)]
        alike = {(vector.shape, vector.dtype, vector.device, vector.is_inference()) for vector in placed}
        wanted = {(like.shape[1:], like.dtype, like.device, False)}
        return cls(placed) if len(placed) == len(vectors) and alike == wanted else None

    def is_theirs(self) -> bool:
        """Whether the vectors still lie there."""
        return _addresses(self._vectors) == self._addresses

    def is_read_as_it_was(self) -> bool:
        """Whether the vectors see their memory as they did."""
        return _read(self._vectors) == self._read

    def differs(self, values: Tensor) -> bool:
        """Whether a vector is not what the values (m, r) say, or is NaN."""
        return bool(kernels.loops().differ(self._array, values.numpy()))

    def write(self, values: Tensor) -> None:
        """Writes the values (m, r) to the vectors, as an operation in place does: autograd is told."""
        kernels.loops().write(self._array, values.numpy())
        torch.autograd.graph.increment_version(self._vectors)


def _addresses(vectors: Sequence[Tensor]) -> list[int]:
    return [vector.data_ptr() for vector in vectors]


def _read(vectors: Sequence[Tensor]) -> set[tuple[torch.Size, torch.dtype, bool, bool]]:
    """In what ways their memory is read."""
    return {(vector.shape, vector.dtype, vector.is_contiguous(), vector.is_neg()) for vector in vectors}
