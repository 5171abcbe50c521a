"""What takes long to compute from weights, kept on disk by their content: decompositions, and the basis of a run.

    with cache_in("~/.cache/decomposed"):      # or the environment variable PROJECTED_GRPO_WEIGHTS_CACHE
        model = get_peft_model(base, SVDRoutingConfig())

An entry's name is a sha256 of what decides it, all but the make of the processor, so there is nothing to invalidate:
another weight, dtype or setting is another entry. Each file holds its own name and a digest of its tensors. One that is
damaged or stands under another's name is computed again and replaced; where nothing can be written, nothing is kept.
Both are told by a warning. The files are safetensors: reading one runs no code.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, uint8

from projected_grpo.whole_files import READABLE, whole

WEIGHTS_CACHE = "PROJECTED_GRPO_WEIGHTS_CACHE"  # it can hold more than the weights do, so there is no default
_chosen: ContextVar[str | Path | None] = ContextVar("cache")


@contextmanager
def cache_in(folder: str | Path | None) -> Iterator[None]:
    """Inside the block what takes long is read from the folder where it is there, and kept there where it is not.

    None keeps nothing, whatever the environment variable says. A block counts in its own thread.
    """
    token = _chosen.set(folder)
    try:
        yield
    finally:
        _chosen.reset(token)


def cache_folder() -> Path | None:
    """The folder of the innermost `cache_in`, or of the environment variable; None if there is neither."""
    named = _chosen.get(os.environ.get(WEIGHTS_CACHE))
    return Path(named).expanduser() if named else None


def kept(kind: str, key: str, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What `compute` returns, or returned when it was last asked for the same; without a cache it is computed.

    Arguments:
        kind: a word for what it is, the name of a folder.
        key: a digest in hexadecimal of everything that decides the tensors.
        compute: called without arguments where nothing is kept. What was kept comes back on the CPU.
    """
    folder = cache_folder()
    if folder is None:
        return dict(compute())
    path = folder / kind / f"{key}.safetensors"
    found = _read(path, key)
    if found is None:
        found = dict(compute())
        _write(path, key, found)
    return found


def _read(path: Path, key: str) -> dict[str, Tensor] | None:
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies, for what is read is the file itself, which somebody may write over while it is in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        _tell(f"{path} cannot be read ({error}); it is computed again.")
        return None
    if metadata.get("entry") != f"{key} {digest_of(tensors)}":
        _tell(f"{path} does not hold what it says; it is computed again.")
        return None
    return tensors


def _write(path: Path, key: str, tensors: Mapping[str, Tensor]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, partial, metadata={"entry": f"{key} {digest_of(tensors)}"})
            partial.chmod(READABLE)
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        _tell(f"{path.parent} cannot be written to ({reason}); nothing is kept there for the next time.")


def _tell(sentence: str) -> None:
    warnings.warn(sentence, RuntimeWarning, stacklevel=4)


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of every name, dtype, shape and byte, whatever the device and the order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(uint8).numpy().data)
    return digest.hexdigest()
