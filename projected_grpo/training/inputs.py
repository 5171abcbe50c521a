"""What decides a run besides its configuration: the files that it reads, and the weights that it starts from.

Their digests go into every checkpoint. A run goes on with the same inputs, or not at all: with others it would end in
other bits, and nobody would know.
"""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from projected_grpo.adapter import fingerprints
from projected_grpo.training.config import TrainConfig, as_plain
from projected_grpo.training.errors import CheckpointError
from projected_grpo.training.policy import Policy


def digests(config: TrainConfig, policy: Policy) -> dict[str, str]:
    """Name of each input → sha256: of the files, and of all weights."""
    files = {
        "problems": config.task.problems, "pairs_from": config.basis.pairs_from, "basis_from": config.basis.basis_from,
        "pool": config.teacher.pool,
    }  # fmt: skip
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path is not None}
    return found | {"model": weights_digest(policy)}


def weights_digest(policy: Policy) -> str:
    """sha256 of the weights: the fingerprints of those that are adapted, and the bytes of all others, biases too.

    Raises FingerprintMismatchError for an adapted weight that is not the one that was decomposed.
    """
    digest = hashlib.sha256(repr(sorted(fingerprints(policy.model).items())).encode())
    for name, p in sorted(policy.model.named_parameters()):
        if "svd_routing" not in name and not name.endswith(".base_layer.weight"):
            digest.update(f"{name} {p.dtype} {tuple(p.shape)}".encode())
            digest.update(p.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def versions(loops: str | None = None) -> dict[str, str]:
    """Of everything that decides the bits of a run; `loops` is what splits in place of torch, if anything does."""
    packages = ("torch", "transformers", "peft", "projected-grpo")
    found = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return found if loops is None else {**found, "loops": loops}


def changes(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A sentence for each of the versions that is another than when a checkpoint was written."""
    return [
        f"{name} was {then.get(name, 'none')} when the checkpoint was written, and is {now.get(name, 'none')} now."
        for name in {**now, **then}
        if then.get(name) != now.get(name)
    ]


def plain_settings(config: TrainConfig) -> dict[str, Any]:
    """The configuration as a checkpoint keeps it: all but where the run lies."""
    plain: dict[str, Any] = as_plain(replace(config, run=replace(config.run, out=None)))
    return plain


def check_same(saved: Mapping[str, Any], config: TrainConfig, present: Mapping[str, str]) -> None:
    """Refuses to go on with other settings or other inputs than a checkpoint was made with.

    Raises CheckpointError, naming the first that differs.
    """
    for section, values in plain_settings(config).items():
        before = saved["config"].get(section)
        names = values if isinstance(values, dict) else {"": values}
        for name, value in names.items():
            was = before.get(name) if isinstance(before, dict) else before
            if was != value:
                raise CheckpointError(
                    f"The checkpoint was made with {name or section} {was!r}, and the run's folder says {value!r}; put "
                    "config.json back as it was, or begin a new run."
                )
    for name in sorted(saved["inputs"].keys() | present.keys()):
        if saved["inputs"].get(name) != present.get(name):
            raise CheckpointError(
                f"{name} is not what it was when the run was begun; put it back, or begin a new run with it."
            )


def absolute(config: TrainConfig) -> TrainConfig:
    """The configuration with paths that mean the same from every directory."""

    def whole(path: Path | None) -> Path | None:
        return path.absolute() if path is not None else None

    model = str(Path(config.model.model).absolute()) if Path(config.model.model).is_dir() else config.model.model
    return replace(
        config,
        model=replace(config.model, model=model),
        task=replace(config.task, problems=whole(config.task.problems)),
        basis=replace(
            config.basis, pairs_from=whole(config.basis.pairs_from), basis_from=whole(config.basis.basis_from)
        ),
        teacher=replace(config.teacher, pool=whole(config.teacher.pool)),
    )
