"""Vectors of many modules, compared, moved and written where they lie: by torch it is a call for each, of a
microsecond."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from projected_grpo import kernels


class Memory:
    """Where m vectors (r,) lie, of which the loops know the addresses alone.

    Others may give a vector other memory at any time, by a cast, a move or `.data =`, and nobody is told. So whenever
    others may have had the vectors, these addresses are compared with those that they have now (`is_theirs`), and
    nothing is read or written where no vector lies. This object holds on to the old memory, so that a vector whose
    `.data` was replaced never gets the same address again by chance, perhaps with fewer entries.

    Arguments:
        vectors: see `of`, which says whether the loops can read them.

    array: the addresses (m,), int64.
    """

    def __init__(self, vectors: Sequence[Tensor]) -> None:
        self._vectors = vectors
        self._held = [vector.detach() for vector in vectors]
        self._read = _read(vectors)
        self._addresses = _addresses(vectors)
        # Named, for a default device may be another.
        self.array = torch.tensor(self._addresses, dtype=torch.int64, device="cpu").numpy()

    @classmethod
    def of(cls, vectors: Sequence[Tensor | None], like: Tensor) -> "Memory | None":
        """That of vectors whose values are like those (m, r), which `serve` has said yes to; None where one is missing,
        is otherwise, shares its address with another, or keeps no version that autograd could be told."""
        placed = [vector for vector in vectors if vector is not None and kernels.is_plain(vector)]
        alike = {(vector.shape, vector.dtype, vector.device, vector.is_inference()) for vector in placed}
        wanted = {(like.shape[1:], like.dtype, like.device, False)}
        apart = len(set(_addresses(placed))) == len(vectors)
        return cls(placed) if apart and alike == wanted else None

    def is_theirs(self) -> bool:
        """Whether the vectors still lie there."""
        return _addresses(self._vectors) == self._addresses

    def is_read_as_it_was(self) -> bool:
        """Whether the vectors see their memory as they did."""
        return _read(self._vectors) == self._read

    def differs(self, values: Tensor) -> bool:
        """Whether a vector is not what the values (m, r) say, or is NaN."""
        return bool(kernels.loops().differ(self.array, values.numpy()))

    def write(self, values: Tensor) -> None:
        """Writes the values (m, r) to the vectors, as an operation in place does: autograd is told."""
        kernels.loops().write(self.array, values.numpy())
        self.tell()

    def tell(self) -> None:
        """Tells autograd that the vectors have been written to."""
        torch.autograd.graph.increment_version(self._vectors)


def move(
    deployed_at: Memory,
    quarantine_at: Memory | None,
    origin: Float[Tensor, "m r"],
    V: Float[Tensor, "m k r"],
    *,
    base: Float[Tensor, "m r"],
    held: Float[Tensor, "m r"] | None,
    point: Float[Tensor, "m r"],
    one_sided: bool,
    strength: float,
    open: Bool[Tensor, "m k"] | None,
    look_at: tuple[Tensor, Tensor, Tensor] | None,
) -> tuple[Float[Tensor, "m r"], Float[Tensor, "m r"] | None, Float[Tensor, "m k"], Tensor | None]:
    """Finds the point in the deployed vectors, splits origin - point as `kernels.split` does, and writes base - kept to
    the deployed vectors and held - removed to those in quarantine.

    Arguments:
        deployed_at, quarantine_at: where the vectors lie; the second is None where what is removed is dropped.
        origin, V, base, held, point, look_at: of the same modules, which `serve` has said yes to, and none in the
            memory of the vectors. These overlap nowhere.
        held: None stands for zeros.
        point: what is found is kept there, perhaps over the origin.
        look_at: g, before and start, if anything is, (m, r) each; only with a quarantine.

    Returns copies of the deployed and the quarantine vectors, the coefficients, and to the same bits what
    `kernels.look_along` says of g, before - deployed, start - deployed and quarantine.
    """
    assert quarantine_at is not None or not look_at, "nothing is looked at where what is removed is dropped"
    m, k, _ = V.shape
    none = V.new_empty(0, 0)
    deployed, c = torch.empty_like(base), V.new_empty(m, k)
    quarantine = none if quarantine_at is None else torch.empty_like(base)
    totals = kernels.no_totals(V, 4)
    read = [origin, V, kernels.open_axes(open, V), base, none if held is None else held]
    arrays = [each.numpy() for each in (*read, point, c, deployed, quarantine)]
    looks = [each.numpy() for each in (*(look_at or (none, none, none)), totals)]
    at = deployed_at.array, (quarantine_at or deployed_at).array
    kernels.loops().move(*at, *arrays, one_sided, strength, *looks)
    if look_at:
        totals[kernels.GAUGES :].sqrt_()
    for memory in (deployed_at, quarantine_at):
        if memory is not None:
            memory.tell()
    return deployed, None if quarantine_at is None else quarantine, c, totals if look_at else None


def _addresses(vectors: Sequence[Tensor]) -> list[int]:
    return [vector.data_ptr() for vector in vectors]


def _read(vectors: Sequence[Tensor]) -> set[tuple[torch.Size, torch.dtype, bool, bool]]:
    """In what ways their memory is read."""
    return {(vector.shape, vector.dtype, vector.is_contiguous(), vector.is_neg()) for vector in vectors}
