"""The folder of a run, and what is in it.

config.json         what decides the run
log.jsonl           see projected_grpo.logs
checkpoints/        see projected_grpo.training.checkpoints
basis.safetensors   V as it was first extracted
vectors.safetensors all trained vectors at the end, the quarantine too
deployed/           the adapter to ship, without a quarantine
report.json         the final report
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TextIO, get_type_hints

from projected_grpo.training.config import BasisConfig, RoutingConfig, TaskConfig, TrainConfig, as_plain
from projected_grpo.training.errors import CheckpointError, RunBusyError, RunExistsError
from projected_grpo.training.loopholes import loophole
from projected_grpo.whole_files import PARTIAL, whole

CONFIG, LOG, CHECKPOINTS = "config.json", "log.jsonl", "checkpoints"
BASIS, VECTORS, DEPLOYED, REPORT = "basis.safetensors", "vectors.safetensors", "deployed", "report.json"


def place(config: TrainConfig) -> Path:
    """Where a run goes."""
    words = [
        config.preset, config.routing.intervention,
        config.routing.space if config.routing.space != RoutingConfig.space else "",
        f"{config.basis.basis}-V" if config.basis.basis != BasisConfig.basis else "",
        config.task.reward if config.task.reward != TaskConfig.reward else "", f"seed{config.run.seed}",
    ]  # fmt: skip
    return config.run.out or Path("runs") / "-".join(word for word in words if word)


@contextmanager
def begun(config: TrainConfig) -> Iterator[Path]:
    """Makes the folder of a new run; a block that raises takes it back. Raises RunExistsError if it holds anything."""
    folder = place(config).absolute()
    there = folder.exists()
    if folder.is_file():
        raise RunExistsError(f"{folder} is a file; name a folder by --out.")
    if there and any(path for path in folder.iterdir() if path.suffix != PARTIAL):
        raise RunExistsError(
            f"{folder} is not empty: go on with that run by `projected-grpo train --resume {folder}`, "
            "or name another folder by --out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_json(folder / CONFIG, as_plain(config))
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if there:
            folder.mkdir(exist_ok=True)
        raise


def reopened(folder: Path) -> TrainConfig:
    """The configuration of a run that was begun. Raises CheckpointError if there is none."""
    try:
        plain = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        config: TrainConfig = _from_plain(TrainConfig, plain)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no run that can be gone on with ({error}).") from error
    return replace(config, run=replace(config.run, out=folder))


def lock(folder: Path) -> TextIO:
    """Holds the folder until the file that is returned is closed. Raises RunBusyError if another process does."""
    file = (folder / CONFIG).open(encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise RunBusyError(f"Another process is at work in {folder}; wait for it, or stop it.") from error
    return file


def sweep(folder: Path) -> None:
    """Removes what a killed process has left half-written; to be called with the folder locked."""
    for left in (*folder.glob(f"*{PARTIAL}"), *folder.glob(f".*{PARTIAL}"), *folder.glob(f"*/.*{PARTIAL}")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON under a temporary name and renames it."""
    with whole(path) as partial:
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _from_plain(kind: Any, plain: Any) -> Any:
    """A config from what `as_plain` made of it. A field that the file does not have takes its default."""
    hints = get_type_hints(kind)
    known = {each.name for each in fields(kind)}
    if stray := sorted(set(plain) - known):
        raise KeyError(f"{stray[0]} is no setting of this version")
    return kind(**{name: _value(hints[name], value) for name, value in plain.items()})


def _value(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return _from_plain(hint, value)
    if isinstance(value, list):
        return tuple(loophole(each) if "Mode" in str(hint) else each for each in value)
    return Path(value) if "Path" in str(hint) else value
