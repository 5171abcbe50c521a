"""Checkpoints: everything that a run needs to go on bit for bit, in safetensors and JSON, whole or not there.

    step-000020/
        tensors.safetensors    vectors, and the tensors of the optimizer's state
        state.json             the rest of that state, the step, the configuration, digests of the tensors and inputs

Random numbers and the learning rate are functions of the step, so they have no state. A checkpoint is written into a
folder of another name and renamed; the newest whole one counts, and the one before it is kept.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from projected_grpo.training.errors import CheckpointError
from projected_grpo.vectors import VectorPair

VERSION = 1
KEPT = 2
TENSORS, STATE = "tensors.safetensors", "state.json"
FOLDER = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """What was read."""

    step: int  # of how many the run is done
    vectors: dict[str, Tensor]  # "module.deployed" and "module.quarantine"
    optimizer: dict[str, Any]
    extra: dict[str, Any]  # plain values that the trainer asked to keep
    skipped: tuple[str, ...] = ()  # newer ones that could not be read, and why


def save(
    folder: Path, step: int, vectors: Mapping[str, VectorPair], optimizer: Mapping[str, Any], extra: Mapping[str, Any]
) -> Path:
    """Writes the checkpoint of a step into `folder`, and removes all but the newest two."""
    tensors = {f"vectors.{name}": value for name, value in named(vectors).items()}
    plain = _flattened(optimizer, "optimizer", tensors)
    target = folder / f"step-{step:06d}"
    partial = folder / f".{target.name}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        # Copies: at the start several of them are one tensor, which safetensors refuses.
        save_file(
            {key: t.detach().cpu().clone(memory_format=torch.contiguous_format) for key, t in tensors.items()},
            partial / TENSORS,
        )
        digest = hashlib.sha256((partial / TENSORS).read_bytes()).hexdigest()
        state = {"version": VERSION, "step": step, "sha256": digest, "optimizer": plain, "extra": dict(extra)}
        (partial / STATE).write_text(json.dumps(state), encoding="utf-8")
        for path in (partial / TENSORS, partial / STATE, partial):
            _reach_the_disk(path)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in found(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _reach_the_disk(path: Path) -> None:
    """Older checkpoints are removed next, so this one must outlive a loss of power too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def named(vectors: Mapping[str, VectorPair]) -> dict[str, Tensor]:
    """ "module.deployed" and "module.quarantine" → the vector, (r,)."""
    pairs = ((f"{name}.{role}", vector) for name, pair in vectors.items() for role, vector in pair._asdict().items())
    return {key: vector.detach() for key, vector in pairs if vector is not None}


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    if not folder.is_dir():
        return []
    steps = {int(match[1]): path for path in folder.iterdir() if (match := FOLDER.fullmatch(path.name))}
    return [steps[step] for step in sorted(steps)]


def newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; None if there is none. Raises CheckpointError if all that there are are damaged."""
    skipped: list[str] = []
    for path in reversed(found(folder)):
        try:
            return replace(read(path), skipped=tuple(skipped))
        except CheckpointError as damaged:
            skipped.append(str(damaged).removesuffix("."))
    if skipped:
        raise CheckpointError(f"No checkpoint of this run can be read ({'; '.join(skipped)}); begin a new run.")
    return None


def read(path: Path) -> Checkpoint:
    """Reads one checkpoint. Raises CheckpointError if it is not whole, or of another version."""
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        digest = hashlib.sha256((path / TENSORS).read_bytes()).hexdigest()
        if state["version"] != VERSION:
            raise CheckpointError(f"{path} is a checkpoint of version {state['version']}, not {VERSION}; start again.")
        if digest != state["sha256"]:
            raise CheckpointError(f"{path / TENSORS} is not what was written there.")
        tensors = load_file(path / TENSORS)
        vectors = {key.removeprefix("vectors."): t for key, t in tensors.items() if key.startswith("vectors.")}
        return Checkpoint(state["step"], vectors, _restored(state["optimizer"], tensors), state["extra"])
    except CheckpointError:
        raise
    except Exception as broken:  # whatever a damaged file makes json and safetensors raise
        raise CheckpointError(f"{path} is no whole checkpoint ({broken}).") from broken


@torch.no_grad()
def restore(vectors: Mapping[str, VectorPair], values: Mapping[str, Tensor]) -> None:
    """Writes the vectors of a checkpoint to the model's. Raises CheckpointError, nothing changed, if they don't fit."""
    own = named(vectors)
    odd = sorted(own.keys() ^ values.keys()) or [key for key in own if own[key].shape != values[key].shape]
    if odd:
        raise CheckpointError(f"The vector {odd[0]} is not the same in the checkpoint and in the model; start again.")
    for name, pair in vectors.items():
        for role, vector in pair._asdict().items():
            if isinstance(vector, nn.Parameter):
                vector.copy_(values[f"{name}.{role}"])


def _flattened(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON, its tensors moved into `tensors`, its tuples and whole-number keys marked."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        items = [[key, _flattened(each, f"{path}.{key}", tensors)] for key, each in value.items()]
        return {"items": items}
    if isinstance(value, tuple | list):
        flat = [_flattened(each, f"{path}.{at}", tensors) for at, each in enumerate(value)]
        return {"tuple": flat} if isinstance(value, tuple) else flat
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise CheckpointError(f"{path} is a {type(value).__name__}, which a checkpoint cannot hold.")


def _restored(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_restored(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "tuple" in value:
        return tuple(_restored(each, tensors) for each in value["tuple"])
    return {key: _restored(each, tensors) for key, each in value["items"]}
