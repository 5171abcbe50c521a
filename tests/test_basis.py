"""The basis: what is refused at the door, what survives a file, what belongs to which decomposition."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from routed_toys import unchecked_types
from safetensors.torch import save_file
from torch import Tensor

from projected_grpo.basis import Basis, orthonormality_tolerance
from projected_grpo.errors import (
    BasisShapeError,
    EmptyBasisError,
    ForeignBasisFileError,
    MissingBasisFileError,
    MixedBasisError,
    NonFiniteBasisError,
    NotOrthonormalError,
    ProjectedGRPOError,
    StaleBasisError,
    TruncatedBasisFileError,
)


def rows(k: int, r: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(r, k, generator=generator, dtype=dtype))[0].T


@pytest.fixture
def basis() -> Basis:
    padded = torch.cat([rows(2, 9), torch.zeros(1, 9)])
    return Basis({"a.q": rows(3, 16), "a.v": padded, "b.q": torch.zeros(0, 16)}, fingerprints={"a.q": "f00d" * 16})


def test_it_is_a_mapping_of_copies(basis: Basis) -> None:
    V = rows(3, 16)
    own = Basis({"a": V})
    V.zero_()
    assert own["a"].any()
    assert list(basis) == ["a.q", "a.v", "b.q"]
    assert len(basis) == 3
    assert "b.q" in basis
    assert basis.k == {"a.q": 3, "a.v": 2, "b.q": 0}
    assert repr(basis) == "Basis(3 modules, 5 axes, torch.float32 on cpu)"
    with pytest.raises(KeyError):
        basis["nowhere"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("k", "r"), [(1, 1), (6, 256), (32, 32), (12, 1024)])
def test_rows_of_a_decomposition_pass_in_every_dtype(k: int, r: int, dtype: torch.dtype) -> None:
    made_in = dtype if dtype in (torch.float64, torch.float32) else torch.float32
    assert Basis({"m": rows(k, r, dtype=made_in).to(dtype)}).k == {"m": k}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_tolerance_can_fail(dtype: torch.dtype) -> None:
    """Twice the tolerance off in the squared length, or in an inner product, is refused."""
    r = 64
    off = 2 * orthonormality_tolerance(r, dtype) + 2 * torch.finfo(dtype).eps
    long = torch.zeros(1, r, dtype=torch.float64)
    long[0, 0] = (1 + off) ** 0.5
    with pytest.raises(NotOrthonormalError, match="m: row 0 has squared length"):
        Basis({"m": long.to(dtype)})
    leaning = torch.zeros(2, r, dtype=torch.float64)
    leaning[0, 0], leaning[1, 0], leaning[1, 1] = 1, off, (1 - off * off) ** 0.5
    with pytest.raises(NotOrthonormalError, match="m: rows 0 and 1 have inner product"):
        Basis({"m": leaning.to(dtype)})


def test_a_row_that_is_nearly_zero_is_neither() -> None:
    with pytest.raises(NotOrthonormalError, match="row 1 has squared length"):
        Basis({"m": torch.tensor([[1.0, 0.0], [0.0, 1e-3]])})


def test_precision_is_remembered_across_dtypes(basis: Basis, tmp_path: Path) -> None:
    """Float32 rows are not orthonormal to float64's accuracy, and say so instead of failing."""
    wide = basis.to(dtype=torch.float64)
    assert (wide.dtype, wide.precision) == (torch.float64, torch.float32)
    with pytest.raises(NotOrthonormalError):
        Basis(dict(wide))
    wide.save(tmp_path / "wide.safetensors")
    assert Basis.load(tmp_path / "wide.safetensors").precision == torch.float32
    there_and_back = basis.to(dtype=torch.bfloat16).to(dtype=torch.float32)
    assert (there_and_back.dtype, there_and_back.precision) == (torch.float32, torch.bfloat16)
    assert there_and_back.fingerprints == basis.fingerprints
    assert basis.to(device="cpu") == basis


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"m": torch.ones(3)}, BasisShapeError, r"m: V is \(3,\) of torch.float32"),
        ({"m": torch.ones(1, 3).long()}, BasisShapeError, r"m: V is \(1, 3\) of torch.int64"),
        ({"m": torch.zeros(1, 0)}, BasisShapeError, r"m: V is \(1, 0\)"),
        ({"m": torch.tensor([[1.0, float("nan")]])}, NonFiniteBasisError, "m: V holds NaN or infinity"),
        ({"m": torch.tensor([[float("inf"), 0.0]])}, NonFiniteBasisError, "m: V holds NaN or infinity"),
        ({}, EmptyBasisError, "The basis names no module; pass a dict"),
        ({"m": [[1.0, 0.0]]}, BasisShapeError, "m: V is a list; it must be a tensor"),
        ([torch.eye(1, 3)], BasisShapeError, "rows is a list; pass a dict"),
        ({"m": torch.zeros(0, 3), "n": torch.zeros(2, 3)}, EmptyBasisError, "All 2 modules"),
        ({"m": torch.eye(1, 3), "n": torch.eye(1, 3).double()}, MixedBasisError, "n is torch.float64 on cpu but m is"),
        ({"m": torch.eye(1, 3), "n": torch.empty(1, 3, device="meta")}, MixedBasisError, "n is torch.float32 on meta"),
    ],
)
def test_what_is_refused(given: Any, error: type[ProjectedGRPOError], message: str) -> None:
    with unchecked_types(), pytest.raises(error, match=message):
        Basis(given)


def test_equality_and_digest(basis: Basis) -> None:
    other = Basis(dict(reversed(list(basis.items()))), fingerprints=basis.fingerprints)
    assert other == basis
    assert hash(other) == hash(basis)
    assert basis != Basis(dict(basis))  # the same rows in unknown coordinates
    changed = {name: V.clone() for name, V in basis.items()}
    changed["a.q"][0] *= -1
    assert Basis(changed, fingerprints=basis.fingerprints) != basis
    assert basis != "a basis"


def test_fingerprints(basis: Basis) -> None:
    basis.check_fingerprints({"a.q": "f00d" * 16, "other": "1"})
    with pytest.raises(StaleBasisError, match=r"a.q: .* f00df00df00d…, and the model has beefbeefbeef"):
        basis.check_fingerprints({"a.q": "beef" * 16})
    with pytest.raises(StaleBasisError, match="the model has none"):
        basis.check_fingerprints({})
    Basis(dict(basis)).check_fingerprints({"a.q": "beef"})  # nothing recorded, nothing to compare


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_file_gives_back_the_same_bits(basis: Basis, dtype: torch.dtype, tmp_path: Path) -> None:
    converted, path = basis.to(dtype=dtype), tmp_path / "deep" / "basis.safetensors"
    converted.save(path)
    loaded = Basis.load(path)
    assert loaded == converted
    assert all(torch.equal(loaded[name], V) for name, V in converted.items())
    assert loaded.fingerprints == converted.fingerprints
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_a_failed_save_leaves_the_old_file(basis: Basis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "basis.safetensors"
    basis.save(path)
    monkeypatch.setattr("projected_grpo.basis.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        basis.to(dtype=torch.float64).save(path)
    assert Basis.load(path) == basis
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_files_that_are_no_basis(basis: Basis, tmp_path: Path) -> None:
    path = tmp_path / "basis.safetensors"
    with pytest.raises(MissingBasisFileError, match="does not exist"):
        Basis.load(path)
    with pytest.raises(FileNotFoundError):
        Basis.load(tmp_path)
    path.write_bytes(b"not a safetensors file at all")
    with pytest.raises(ForeignBasisFileError, match="not a whole safetensors file"):
        Basis.load(path)
    save_file({"m": torch.eye(2)}, path)
    with pytest.raises(ForeignBasisFileError, match="no hack-basis of version 1"):
        Basis.load(path)
    header = {"format": "hack-basis", "version": 2, "digest": "", "fingerprints": {}, "precision": "torch.float32"}
    save_file({"m": torch.eye(2)}, path, metadata={"basis": json.dumps(header)})
    with pytest.raises(ForeignBasisFileError):
        Basis.load(path)
    save_file({"m": torch.eye(2)}, path, metadata={"basis": json.dumps({**header, "version": 1})})
    with pytest.raises(TruncatedBasisFileError, match="digest"):
        Basis.load(path)


def test_files_that_were_cut_off_or_changed(basis: Basis, tmp_path: Path) -> None:
    path = tmp_path / "basis.safetensors"
    basis.save(path)
    whole = path.read_bytes()
    for length in (4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TruncatedBasisFileError):
            Basis.load(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(TruncatedBasisFileError, match="digest"):
        Basis.load(path)
