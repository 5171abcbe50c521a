"""The gradient tape: what a real run fed to its optimizer, so that other code can be replayed on it.

A safetensors file with, per module, the accumulated gradients of every step (steps, r), the basis (k, r) and
the starting vector (r,), and a JSON header with hyperparameters, seeds and versions. Replaying is open loop:
the gradients stay what they were, whatever the replayed code would have sampled. End to end the arms differ,
because each samples its rollouts from its own model.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "gradient-tape"
VERSION = 1


class TapeError(ValueError):
    """A file cannot be used as a gradient tape; the base of the two below."""


class ForeignTapeError(TapeError):
    """A readable file that is no tape of this version."""


class TruncatedTapeError(TapeError):
    """A tape that was cut off or changed after it was written."""


@dataclass(frozen=True, kw_only=True)
class Tape:
    """gradients: module -> (steps, r); basis: module -> (k, r); start: module -> (r,)."""

    gradients: dict[str, Tensor]
    basis: dict[str, Tensor]
    start: dict[str, Tensor]
    header: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """How many steps were recorded."""
        return next(iter(self.gradients.values())).shape[0]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """The gradients step by step, module -> (r,).

        Copies, since a product may round otherwise for a view, which starts at another alignment than a tensor.
        """
        return ({name: g[t].clone() for name, g in self.gradients.items()} for t in range(self.steps))

    def digest(self) -> str:
        """sha256 of every tensor's name, dtype, shape and bytes."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        parts = {"gradients": self.gradients, "basis": self.basis, "start": self.start}
        return {f"{part}/{name}": t for part, named in parts.items() for name, t in named.items()}

    def save(self, path: str | Path) -> None:
        """Writes the tape under a temporary name and renames it, so that no half tape is ever seen."""
        path = Path(path)
        header = {
            "torch": torch.__version__, "python": platform.python_version(), **self.header,
            "format": FORMAT, "version": VERSION, "digest": self.digest(),
            # The file sorts them, and a norm over all modules rounds in their order.
            "modules": list(dict.fromkeys([*self.gradients, *self.basis, *self.start])),
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            tensors = {name: t.contiguous().clone() for name, t in self._tensors().items()}  # no two may share memory
            save_file(tensors, partial, metadata={"tape": json.dumps(header, sort_keys=True)})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def load(path: str | Path) -> Tape:
    """Reads a tape and checks it against its own digest.

    Raises FileNotFoundError, ForeignTapeError or TruncatedTapeError.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; record a tape with `python -m reference --record DIR`.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        # Only a safetensors file begins with the length of a JSON header, as 8 little-endian bytes.
        head = path.read_bytes()[:9]
        kind = TruncatedTapeError if head[8:] == b"{" or 0 < len(head) < 9 else ForeignTapeError
        raise kind(f"{path} is not a whole safetensors file ({error}); record the tape again.") from None
    try:
        header = json.loads(metadata["tape"])
        known = (header["format"], header["version"]) == (FORMAT, VERSION)
        order = dict.fromkeys(header["modules"])
    except (KeyError, TypeError, ValueError):
        known = False
    if not known:
        raise ForeignTapeError(f"{path} is no {FORMAT} of version {VERSION}; record one with `python -m reference`.")
    parts: dict[str, dict[str, Tensor]] = {"gradients": {}, "basis": {}, "start": {}}
    for key, tensor in tensors.items():
        part, _, name = key.partition("/")
        if part not in parts:
            raise ForeignTapeError(f"{path} holds {key!r}, which no {FORMAT} of version {VERSION} has.")
        parts[part][name] = tensor
    ordered = {part: {name: named[name] for name in order if name in named} for part, named in parts.items()}
    tape = Tape(**ordered, header=header)
    if not tape.gradients or tape.digest() != header.get("digest"):
        raise TruncatedTapeError(f"{path} does not hold what its header's digest says; record the tape again.")
    return tape
