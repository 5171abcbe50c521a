"""Warmed-up models on disk: a testbed's default one comes with the package, others are made once and kept in a cache.

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from projected_grpo.tiny import model as models
from projected_grpo.tiny.errors import CheckpointError
from projected_grpo.tiny.tokens import word_level
from projected_grpo.tiny.warmup import Demonstrated, Schedule, training
from projected_grpo.whole_files import READABLE

CACHE_VARIABLE = "PROJECTED_GRPO_CACHE"
METADATA, WEIGHTS = "warmup.json", "model.safetensors"

Recipe = TypeVar("Recipe", bound=Schedule)


@dataclass(frozen=True, kw_only=True)
class Family(Generic[Recipe]):
    """The models of one testbed: a vocabulary, demonstrations, and where the shipped one is.

    Arguments:
        shipped: the folder of the model of seed 0 and the default recipe.
        default: that recipe.
        version: raised when the same recipe and seed begin to mean other batches; caches of the old ones are left
            alone then.
        tokens: what each token reads as.
        prompt_tokens: of every prompt.
        demonstrate: draws one batch to learn from; the generator decides all of it.
    """

    shipped: Path
    default: Recipe
    version: int
    tokens: tuple[str, ...]
    prompt_tokens: int
    demonstrate: Callable[[torch.Generator, Recipe], Demonstrated]

    @property
    def sizes(self) -> dict[str, Any]:
        """The shape of the models."""
        return models.sizes(tokens=len(self.tokens), prompt_tokens=self.prompt_tokens)

    def build(self, seed: int, *, architecture: models.Architecture = "qwen3") -> PreTrainedModel:
        """An untrained model in float32 and eval mode; one seed, one model, whatever was drawn before it."""
        return models.build(seed, self.sizes, architecture)

    def training(self, model: PreTrainedModel, seed: int, recipe: Recipe | None = None) -> Iterator[float]:
        """Trains the model in place; yields the loss of each step, in nats a token."""
        chosen = self.default if recipe is None else recipe
        return training(model, seed, chosen, lambda generator: self.demonstrate(generator, chosen))

    def warm_up(self, seed: int, recipe: Recipe | None = None) -> PreTrainedModel:
        """A model after the whole recipe, in eval mode; initialisation and batches depend on the seed alone."""
        chosen = self.default if recipe is None else recipe
        model = self.build(seed, architecture=chosen.architecture)
        for _ in self.training(model, seed, chosen):
            pass
        return model.eval()

    def load(self, seed: int = 0, recipe: Recipe | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The warmed-up model in eval mode and its tokenizer; raises what `folder` raises."""
        path = self.folder(seed, recipe)
        with quiet():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
        return model.eval(), tokenizer

    def folder(self, seed: int = 0, recipe: Recipe | None = None) -> Path:
        """Where the warmed-up model is. It is made first, in seconds, if it is neither shipped nor cached.

        Raises CheckpointError if the shipped files are damaged; a damaged cache is made anew.
        """
        chosen = self.default if recipe is None else recipe
        if seed == 0 and chosen == self.default:
            check(self.shipped)
            return self.shipped
        path = cache() / self.key(seed, chosen)
        if path.exists():
            try:
                check(path)
                return path
            except CheckpointError:
                shutil.rmtree(path, ignore_errors=True)
        return self._make(path, seed, chosen)

    def identity(self, seed: int, recipe: Recipe) -> dict[str, Any]:
        """Everything that decides the bits of a warmed-up model, but for the processor."""
        return {
            "version": self.version,
            "seed": seed,
            "recipe": asdict(recipe),
            "sizes": self.sizes,
            "tokens": self.tokens,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }

    def key(self, seed: int, recipe: Recipe) -> str:
        """The name of the cached folder."""
        digest = hashlib.sha256(json.dumps(self.identity(seed, recipe), sort_keys=True).encode()).hexdigest()
        return f"warm-{recipe.architecture}-seed{seed}-{digest[:16]}"

    def save(self, model: PreTrainedModel, path: Path) -> None:
        """Writes model and tokenizer, so that AutoModelForCausalLM and AutoTokenizer read them from the folder."""
        with quiet():
            model.save_pretrained(path)
        word_level(self.tokens).save_pretrained(path)

    def write(self, model: PreTrainedModel, path: Path, about: dict[str, Any]) -> None:
        """Writes a model, its tokenizer and its metadata into a folder that exists."""
        self.save(model, path)
        (path / WEIGHTS).chmod(READABLE)
        digest = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
        text = json.dumps({**about, "sha256": digest}, indent=1, sort_keys=True)
        (path / METADATA).write_text(text + "\n", encoding="utf-8")

    def _make(self, path: Path, seed: int, recipe: Recipe) -> Path:
        """Warms a model up and moves it into place at once, or leaves nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".making-") as making:
            made = Path(making) / path.name
            made.mkdir()
            self.write(self.warm_up(seed, recipe), made, self.identity(seed, recipe))
            try:
                made.rename(path)
            except OSError:  # another process was first
                check(path)
        return path


def cache() -> Path:
    """The cache folder: $PROJECTED_GRPO_CACHE, or `projected_grpo` where this system keeps caches."""
    if given := os.environ.get(CACHE_VARIABLE):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "projected_grpo" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "projected_grpo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "projected_grpo"


def check(path: Path) -> None:
    """Compares the weights with their recorded hash. Raises CheckpointError if they differ, or a file is missing."""
    try:
        recorded = json.loads((path / METADATA).read_text(encoding="utf-8"))["sha256"]
        found = hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} holds no complete warmed-up model ({error!r}); delete the folder.") from error
    if found != recorded:
        raise CheckpointError(f"{path / WEIGHTS} is not what was written there; delete the folder, or install again.")


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
