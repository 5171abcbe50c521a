"""The hack basis: for each adapted module, the directions along which gradients are split.

V (k, r) lives in the coordinates of one decomposition of the module's weight, so it is worth nothing next to another:
the fingerprints say which one. Rows are orthonormal or zero, and a positive coefficient c = V g means that a descent
step along g moves hack-ward. A module without any row (k = 0) is left alone.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from projected_grpo.errors import (
    BasisShapeError,
    EmptyBasisError,
    ForeignBasisFileError,
    MissingBasisFileError,
    MixedBasisError,
    NonFiniteBasisError,
    NotOrthonormalError,
    StaleBasisError,
    TruncatedBasisFileError,
)
from projected_grpo.whole_files import whole

FORMAT = "hack-basis"
VERSION = 1
PRECISIONS = {str(dtype): dtype for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}


def orthonormality_tolerance(r: int, dtype: torch.dtype) -> float:
    """How far |V Vᵀ - diag(0/1)| may be from zero for rows of length r that were once held in `dtype`.

        2u + u² + 4 r w,    w = min(u, 2⁻²⁴)

    The first part is storage: each entry is rounded once, relatively by at most u (the dtype's unit roundoff), so by
    Cauchy-Schwarz an inner product of unit rows moves by at most 2u + u². The second is the decomposition that made
    the rows, whose vectors are orthogonal to p(r) w with p "a modestly growing function" (Anderson et al. 1999, LAPACK
    Users' Guide, section 4.9), here 4 r; no decomposition runs in less than float32.
    """
    u = torch.finfo(dtype).eps / 2
    return 2 * u + u * u + 4 * r * min(u, 2.0**-24)


class Basis(Mapping[str, Tensor]):
    """Module name → V (k, r), validated once, never changed afterwards.

    Arguments:
        rows: module → V (k, r), floating point, rows orthonormal or zero; k = 0 is fine for some modules. Copied.
        fingerprints: module → fingerprint of the decomposition that its rows are written in (the adapter's).
        precision: the coarsest dtype that the rows have ever been held in, if that isn't their own: rows that were
            computed in float32 are orthonormal to float32's accuracy in float64 too.

    Raises:
        BasisShapeError: V is no (k, r) matrix with r >= 1 of floating-point numbers.
        MixedBasisError: modules differ in dtype or device.
        NonFiniteBasisError: NaN or infinity.
        NotOrthonormalError: rows are neither orthonormal nor zero, beyond `orthonormality_tolerance`.
        EmptyBasisError: there is no module, or no row of any is different from zero.

    >>> Basis({"layers.0.q_proj": torch.eye(2, 8)})
    Basis(1 modules, 2 axes, torch.float32 on cpu)
    """

    def __init__(
        self,
        rows: Mapping[str, Tensor],
        *,
        fingerprints: Mapping[str, str] | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        if not isinstance(rows, Mapping):
            raise BasisShapeError(f"rows is a {type(rows).__name__}; pass a dict from module names to V (k, r).")
        if not rows:
            raise EmptyBasisError("The basis names no module; pass a dict from module names to V (k, r).")
        for name, V in rows.items():
            if not isinstance(V, Tensor):
                raise BasisShapeError(
                    f"{name}: V is a {type(V).__name__}; it must be a tensor, (k, r): torch.tensor(V)."
                )
        self._rows = {name: V.detach().clone().contiguous() for name, V in rows.items()}
        self.fingerprints = dict(fingerprints or {})
        for name, V in self._rows.items():
            if V.ndim != 2 or V.shape[1] == 0 or str(V.dtype) not in PRECISIONS:
                raise BasisShapeError(
                    f"{name}: V is {tuple(V.shape)} of {V.dtype}; it must be a (k, r) matrix of one of "
                    f"{', '.join(PRECISIONS)}."
                )
        if not any(bool(V.any()) for V in self._rows.values()):
            raise EmptyBasisError(
                f"All {len(self._rows)} modules of the basis are without a row that isn't zero, so it would route "
                "nothing; lower the noise floor of the extraction, or bring more pairs."
            )
        first_name, first = next(iter(self._rows.items()))
        for name, V in self._rows.items():
            if (V.dtype, V.device) != (first.dtype, first.device):
                raise MixedBasisError(
                    f"{name} is {V.dtype} on {V.device} but {first_name} is {first.dtype} on {first.device}; "
                    "convert the rows to one dtype and device first."
                )
        self.dtype, self.device = first.dtype, first.device
        self.precision = _coarser(self.dtype, precision or self.dtype)
        for name, V in self._rows.items():
            _check_rows(name, V, self.precision)

    def __getitem__(self, name: str) -> Tensor:
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    # A Mapping compares by its items, and tensors don't compare to a bool; two bases are equal by digest.
    def __eq__(self, other: object) -> bool:
        return self.digest() == other.digest() if isinstance(other, Basis) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return f"Basis({len(self)} modules, {sum(self.k.values())} axes, {self.dtype} on {self.device})"

    @property
    def k(self) -> dict[str, int]:
        """Module → number of its rows that aren't zero."""
        return {name: int(V.any(dim=1).sum()) for name, V in self._rows.items()}

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Basis":
        """The same basis in another dtype, on another device; remembers the coarsest dtype that it went through."""
        rows = {name: V.to(dtype=dtype, device=device) for name, V in self._rows.items()}
        return Basis(rows, fingerprints=self.fingerprints, precision=_coarser(self.precision, dtype or self.dtype))

    def check_fingerprints(self, present: Mapping[str, str]) -> None:
        """Refuses a model whose decompositions are not those that the rows are written in.

        Arguments:
            present: module → fingerprint of the decomposition that the model has.

        Raises:
            StaleBasisError: a module with a recorded fingerprint has another one, or none, in `present`.
        """
        for name, fingerprint in self.fingerprints.items():
            if present.get(name) != fingerprint:
                raise StaleBasisError(
                    f"{name}: the basis was extracted in the decomposition {fingerprint[:12]}…, and the model has "
                    f"{(present.get(name) or 'none')[:12]}; extract the basis again from this model."
                )

    def digest(self) -> str:
        """sha256 of every module's name, fingerprint, dtype, shape and bytes, whatever the device and the order."""
        return _digest(self._rows, self.fingerprints)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file under a temporary name and renames it, so that no half basis is ever seen."""
        path = Path(path)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "digest": self.digest(),
            "fingerprints": self.fingerprints,
            "precision": str(self.precision),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            save_file(self._rows, partial, metadata={"basis": json.dumps(header, sort_keys=True)})

    @classmethod
    def load(cls, path: str | Path) -> "Basis":
        """Reads a basis, checks it against its own digest, and validates it like any other.

        Raises:
            MissingBasisFileError: there is no such file.
            ForeignBasisFileError: the file is no basis of this version.
            TruncatedBasisFileError: the file was cut off or changed.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingBasisFileError(f"{path} does not exist or is no file; write a basis there with basis.save.")
        rows, header = _read(path)
        if _digest(rows, header["fingerprints"]) != header["digest"]:
            raise TruncatedBasisFileError(f"{path} does not hold what its header's digest says; save the basis again.")
        return cls(rows, fingerprints=header["fingerprints"], precision=PRECISIONS[header["precision"]])


def _check_rows(name: str, V: Tensor, precision: torch.dtype) -> None:
    """Refuses rows (k, r) that are not finite, or neither orthonormal nor zero."""
    if not bool(torch.isfinite(V).all()):
        raise NonFiniteBasisError(f"{name}: V holds NaN or infinity; extract the basis again from finite gradients.")
    wide = V.double()  # so that the check itself adds nothing to what it measures
    expected = torch.diag(V.any(dim=1).double())  # (k, k)
    error = (wide @ wide.T - expected).abs()
    tolerance = orthonormality_tolerance(V.shape[1], precision)
    if error.numel() and not float(error.max()) <= tolerance:
        i, j = divmod(int(error.argmax()), V.shape[0])
        what = f"row {i} has squared length" if i == j else f"rows {i} and {j} have inner product"
        raise NotOrthonormalError(
            f"{name}: {what} {float(wide[i] @ wide[j]):.9g}, {float(error[i, j]):.3g} away from "
            f"{float(expected[i, j]):.0f} where {tolerance:.3g} is allowed; orthonormalise the rows, e.g. by an SVD."
        )


def _digest(rows: Mapping[str, Tensor], fingerprints: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, V in sorted(rows.items()):
        digest.update(f"{name} {fingerprints.get(name)} {V.dtype} {tuple(V.shape)}\n".encode())
        digest.update(V.cpu().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _coarser(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    return a if torch.finfo(a).eps >= torch.finfo(b).eps else b


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Rows and header of a file that says it is a basis of this version."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (an open file is no mapping)
    except SafetensorError as error:
        # Only a safetensors file begins with the length of a JSON header, as 8 little-endian bytes.
        head = path.read_bytes()[:9]
        kind = TruncatedBasisFileError if head[8:] == b"{" or 0 < len(head) < 9 else ForeignBasisFileError
        raise kind(f"{path} is not a whole safetensors file ({error}); save the basis again.") from None
    try:
        header: dict[str, Any] = json.loads(metadata["basis"])
        known = (header["format"], header["version"]) == (FORMAT, VERSION)
        known = known and {"digest", "fingerprints"} <= header.keys() and header["precision"] in PRECISIONS
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ForeignBasisFileError(f"{path} is no {FORMAT} of version {VERSION}; write one with basis.save.")
    return rows, header
