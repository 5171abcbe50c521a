"""Which optimizers there are: torch's own, and those of the package pytorch_optimizer, as this machine has them.

Nothing here lists names: a release that adds an optimizer adds a candidate. descriptors.toml says how some of them want
to be built and called.
"""

import functools
import importlib
import itertools
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.resources import files
from typing import Any

import torch
from torch.optim import Optimizer

from invariants.errors import OptimizerImportError, SuiteError
from invariants.load import load_object
from invariants.optimizers.candidate import Candidate, Manner

TORCH, PACKAGE = "torch", "pytorch_optimizer"


@functools.cache
def descriptors() -> dict[str, dict[str, Any]]:
    """What descriptors.toml says: "source.name" -> its entry.

    Raises SuiteError if an entry has a key that means nothing.
    """
    text = (files("invariants.optimizers") / "descriptors.toml").read_text(encoding="utf-8")
    known = {"kwargs", "dtype_kwargs", "why", "plain", *Manner.__dataclass_fields__}
    entries = {
        f"{source}.{name}": entry for source, named in tomllib.loads(text).items() for name, entry in named.items()
    }
    for name, entry in entries.items():
        if stray := set(entry) - known:
            raise SuiteError(f"descriptors.toml: {name} has {', '.join(sorted(stray))}, which means nothing.")
    return entries


def described(candidate: Candidate, key: str) -> Candidate:
    """The candidate as its descriptor says, or as it is if it has none; what the caller passes goes first."""
    entry = descriptors().get(f"{candidate.source}.{key}")
    if entry is None:
        return candidate
    flags = {name: value for name, value in entry.items() if name in Manner.__dataclass_fields__}
    if "group" in flags:
        flags["group"] = tuple(flags["group"].items())
    return Candidate(
        name=candidate.name, make=candidate.make, source=candidate.source, why=entry.get("why", ""),
        kwargs={**entry.get("kwargs", {}), **candidate.kwargs}, dtype_kwargs=tuple(entry.get("dtype_kwargs", ())),
        manner=Manner(**flags) if flags or entry.get("plain") else None,
    )  # fmt: skip


def torchs_own() -> Iterator[Candidate]:
    """Every optimizer that torch.optim exports."""
    for name, found in sorted(vars(torch.optim).items()):
        if isinstance(found, type) and issubclass(found, Optimizer) and found is not Optimizer:
            yield described(Candidate(name=name, make=found, source=TORCH), name)


def packages() -> Iterator[Candidate]:
    """Every optimizer that pytorch_optimizer says it has; none if it isn't installed."""
    package = _package()
    for name in package.get_supported_optimizers() if package else ():
        make = package.load_optimizer(name)
        yield described(Candidate(name=make.__name__, make=make, source=PACKAGE), name)


def everything() -> list[Candidate]:
    """All of both; two of one name are told apart by their source."""
    return [*torchs_own(), *packages()]


def package_version() -> str | None:
    """Of pytorch_optimizer; None if it isn't installed."""
    return metadata.version(PACKAGE) if _package() else None


def named(name: str) -> Candidate:
    """One of them by name, in any case, torch's first; or SOURCE:NAME, or the module:Class of somebody's own.

    Raises OptimizerImportError.
    """
    source, colon, leaf = name.partition(":")
    if not colon:
        source, leaf = "", name
    if source in ("", TORCH, PACKAGE):
        for candidate in itertools.chain(torchs_own(), packages()):  # the second is imported if the first has it not
            if candidate.name.lower() == leaf.lower() and source in ("", candidate.source):
                return candidate
        missing = "" if _package() else f"; {PACKAGE} is not installed (the extra 'optimizers')"
        raise OptimizerImportError(
            f"Neither torch nor {PACKAGE} has an optimizer {leaf!r}{missing}; name your own as mypackage.module:Class."
        )
    return _imported(name)


def _imported(spec: str) -> Candidate:
    make = load_object(spec, "the optimizer's class, or a function that makes one", OptimizerImportError)
    if not callable(make):
        raise OptimizerImportError(f"{spec} is of type {type(make).__name__}, and makes no optimizer; name its class.")
    return Candidate(name=spec.partition(":")[2], make=make, source=spec.partition(":")[0])


@functools.cache
def _package() -> Any:
    try:
        return importlib.import_module(PACKAGE)
    except Exception:  # it isn't there, or does not fit this version of torch
        return None
