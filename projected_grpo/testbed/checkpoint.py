"""Warmed-up models on disk: the default one comes with the package, others are made once and kept in a cache.

A folder holds what AutoModelForCausalLM and AutoTokenizer read, and `warmup.json`: recipe, seed, versions, and the
SHA-256 of the weights, which is compared each time. A cached folder is named by the hash of everything that decides its
bits, is written under another name and renamed: whoever loses a race takes the winner's.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from projected_grpo.adapter.export import READABLE
from projected_grpo.testbed import vocabulary as v
from projected_grpo.testbed.errors import CheckpointError
from projected_grpo.testbed.model import SIZES, save
from projected_grpo.testbed.warmup import VERSION, Recipe, warm_up

CACHE_VARIABLE = "PROJECTED_GRPO_CACHE"
SHIPPED = Path(__file__).parent / "data" / "warm"  # seed 0, the default recipe
METADATA, WEIGHTS = "warmup.json", "model.safetensors"


def load(seed: int = 0, recipe: Recipe = Recipe()) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:  # noqa: B008  (it is frozen)
    """The warmed-up model in eval mode and its tokenizer; raises what `folder` raises."""
    path = folder(seed, recipe)
    with quiet():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
    return model.eval(), tokenizer


def folder(seed: int = 0, recipe: Recipe = Recipe()) -> Path:  # noqa: B008  (it is frozen)
    """Where the warmed-up model is. It is made first, in 15 seconds, if it is neither shipped nor cached.

    Raises CheckpointError if the shipped files are damaged; a damaged cache is made anew.
    """
    if seed == 0 and recipe == Recipe():
        check(SHIPPED)
        return SHIPPED
    path = cache() / key(seed, recipe)
    if path.exists():
        try:
            check(path)
            return path
        except CheckpointError:
            shutil.rmtree(path, ignore_errors=True)
    return _make(path, seed, recipe)


def cache() -> Path:
    """The cache folder: $PROJECTED_GRPO_CACHE, or `projected_grpo` where this system keeps caches."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "projected_grpo" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "projected_grpo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "projected_grpo"


def identity(seed: int, recipe: Recipe) -> dict[str, Any]:
    """Everything that decides the bits of a warmed-up model, but for the processor."""
    return {
        "version": VERSION,
        "seed": seed,
        "recipe": asdict(recipe),
        "sizes": SIZES,
        "tokens": v.TOKENS,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def key(seed: int, recipe: Recipe) -> str:
    """The name of the cached folder."""
    digest = hashlib.sha256(json.dumps(identity(seed, recipe), sort_keys=True).encode()).hexdigest()
    return f"warm-{recipe.architecture}-seed{seed}-{digest[:16]}"


def check(path: Path) -> None:
    """Compares the weights with their recorded hash. Raises CheckpointError if they differ, or a file is missing."""
    try:
        recorded = json.loads((path / METADATA).read_text(encoding="utf-8"))["sha256"]
        found = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no complete warmed-up model ({error!r}); delete the folder.") from error
    if found != recorded:
        raise CheckpointError(f"{path / WEIGHTS} is not what was written there; delete the folder, or install again.")


def write(model: PreTrainedModel, path: Path, about: dict[str, Any]) -> None:
    """Writes a model, its tokenizer and its metadata into a folder that exists."""
    with quiet():
        save(model, path)
    (path / WEIGHTS).chmod(READABLE)
    digest = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    text = json.dumps({**about, "sha256": digest}, indent=1, sort_keys=True)
    (path / METADATA).write_text(text + "\n", encoding="utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """A block without transformers' progress bars, which outlast a model of this size."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _make(path: Path, seed: int, recipe: Recipe) -> Path:
    """Warms a model up and moves it into place at once, or leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as making:
        made = Path(making) / path.name
        made.mkdir()
        write(warm_up(seed, recipe), made, identity(seed, recipe))
        try:
            made.rename(path)
        except OSError:  # another process was first
            check(path)
    return path
