"""The singular basis of a weight, and a fingerprint that says which basis it is."""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from projected_grpo.adapter.errors import AdapterConfigError
from projected_grpo.cache import kept

_SVD_DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Decomposition(NamedTuple):
    """W = U diag(S) Vh, reduced; all three contiguous and in W's dtype."""

    U: Float[Tensor, "d_out r"]
    S: Float[Tensor, " r"]
    Vh: Float[Tensor, "r d_in"]


def resolve_svd_dtype(name: str) -> torch.dtype:
    """Returns the dtype that a decomposition is computed in.

    Raises AdapterConfigError for a name that is not "float32" or "float64".
    """
    if name not in _SVD_DTYPES:
        raise AdapterConfigError(f"svd_dtype is {name!r}: choose one of {', '.join(map(repr, _SVD_DTYPES))}.")
    return _SVD_DTYPES[name]


def decompose(weight: Float[Tensor, "d_out d_in"], svd_dtype: str = "float64") -> Decomposition:
    """Returns the reduced SVD of a weight, computed in `svd_dtype` and free of autograd.

    A singular pair is unique up to a common sign: each column of U has its entry of largest magnitude positive, so that
    the trained vectors mean the same on every machine. Where singular values coincide the basis is not unique.
    """
    with torch.no_grad():
        U, S, Vh = torch.linalg.svd(weight.to(resolve_svd_dtype(svd_dtype)), full_matrices=False)
        sign = torch.sign(U.gather(0, U.abs().argmax(0, keepdim=True))).squeeze(0)  # (r,)
        return Decomposition(*(factor.to(weight.dtype).contiguous() for factor in (U * sign, S, Vh * sign[:, None])))


def decomposition_of(weight: Float[Tensor, "d_out d_in"], svd_dtype: str, fingerprint: str) -> Decomposition:
    """Returns `decompose` of a weight with this fingerprint, from the cache where there is one that has it.

    What decides its last bits, the version of torch, the kind of device and the number of threads, is another entry.
    """
    decides = f"{fingerprint} {torch.__version__} {weight.device.type} {torch.get_num_threads()}"
    key = hashlib.sha256(decides.encode()).hexdigest()
    parts = kept("svd-1", key, lambda: decompose(weight, svd_dtype)._asdict())
    return Decomposition(**{name: part.to(weight.device) for name, part in parts.items()})


def fingerprint(weight: Float[Tensor, "d_out d_in"], svd_dtype: str = "float64") -> str:
    """Returns a sha256 over what fixes a weight's singular basis: its exact bytes, dtype, shape, SVD dtype and rank.

    The bytes are hashed as they are, never after a cast: a weight that was loaded in bfloat16 instead of float32 has
    another basis, and the same trained vectors would mean another model.
    """
    resolve_svd_dtype(svd_dtype)
    d_out, d_in = weight.shape
    digest = hashlib.sha256(f"{weight.dtype} {d_out}x{d_in} {svd_dtype} {min(d_out, d_in)}\n".encode())
    digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
