"""Measuring: one optimizer, or many."""

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

import invariants.optimizers.conduct  # noqa: F401  (importing it registers its probes)
from invariants.errors import SuiteError
from invariants.optimizers.advice import advice
from invariants.optimizers.candidate import MANNERS, Candidate, candidates
from invariants.optimizers.catalogue import TORCH, described, package_version
from invariants.optimizers.guarantees import GUARANTEES, SPACES
from invariants.optimizers.paths import seeded
from invariants.optimizers.probes import PROBES, Laboratory, measured, raised
from invariants.optimizers.report import OptimizerReport, Survey, versions
from invariants.optimizers.routing import Arms, Router
from invariants.optimizers.runs import SEED, Running
from invariants.optimizers.sequences import Drawn, drawn, routed
from invariants.optimizers.variants import variants

TRIED = 20  # steps in which it has to move something, in whatever manner it is called


def check_optimizer(given: Any, *, router: Router | None = None, seed: int = 0) -> OptimizerReport:
    """Measures one optimizer; a second or so.

    Args:
        given: a class, a function from parameters to an optimizer, (class, kwargs), or a Candidate.
        router: makes somebody's own routed step, to be compared with the specification's.
        seed: of the drawn gradients, starts and bases.

    >>> report = check_optimizer((torch.optim.SGD, {"lr": 0.1}))
    >>> report.holds("additive"), report.holds("keeps_sum@gradient"), report.holds("no_ratchet@gradient")
    (True, True, False)
    """
    [candidate] = candidates([given])
    began = time.perf_counter()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # what it says is not asked for
        warnings.simplefilter("ignore")
        report = _measured(_as_described(candidate), router, seed)
    return replace(report, advice=advice(report), seconds=time.perf_counter() - began)


def _as_described(candidate: Candidate) -> Candidate:
    """torch's own may be handed in as bare classes."""
    make = candidate.make
    if candidate.manner is None and getattr(torch.optim, getattr(make, "__name__", ""), None) is make:
        return replace(described(replace(candidate, source=TORCH), make.__name__), source=candidate.source)
    return candidate


def _measured(candidate: Candidate, router: Router | None, seed: int) -> OptimizerReport:
    on, gradients = routed(seed), drawn(seed)
    try:
        candidate = in_its_manner(candidate, gradients)
        arms = Arms(candidate, on)
        spaces = arms.spaces(router)
    except Exception as error:  # whatever a foreign optimizer raises
        return _report(candidate, problem=raised(error))
    laboratory = Laboratory(candidate, gradients)
    return replace(
        _report(candidate), probes={name: measured(name, laboratory) for name in PROBES}, spaces=spaces,
        variants=variants(candidate, on, gradients, seed),
    )  # fmt: skip


def _report(candidate: Candidate, problem: str | None = None) -> OptimizerReport:
    return OptimizerReport(
        name=candidate.name, source=candidate.source, kwargs=dict(candidate.kwargs), why=candidate.why,
        manner=str(candidate.manner or ""), problem=problem,
    )  # fmt: skip


def in_its_manner(candidate: Candidate, gradients: Drawn) -> Candidate:
    """The candidate, called as it wants to be: as its descriptor says, or in the first manner in which it moves.

    Raises what it raises in the plain manner, or the one that its descriptor names, if it moves in none.
    """
    first: Exception | None = None
    for manner in MANNERS if candidate.manner is None else (candidate.manner,):
        shown = replace(candidate, manner=manner)
        try:
            if _moves(shown, gradients):
                return shown
            first = first or RuntimeError(f"it moved nothing in {TRIED} steps")
        except Exception as error:  # whatever a foreign optimizer raises
            first = first or error
    assert first is not None, "there is at least one manner"
    raise first


def _moves(candidate: Candidate, gradients: Drawn) -> bool:
    with seeded(SEED):
        running = Running(candidate, gradients.start)
        for t in range(TRIED):
            running.step({name: g[t] for name, g in gradients.b.items()})
    return any(not torch.equal(gradients.start[name], p.detach()) for name, p in running.vectors.items())


def survey(
    given: Sequence[Any],
    *,
    router: Router | None = None,
    seed: int = 0,
    require: Collection[str] = (),
    notes: Sequence[str] = (),
    progress: Callable[[str], object] | None = None,
) -> Survey:
    """Measures many optimizers, one after the other.

    Args:
        given: what `check_optimizer` takes, each.
        router, seed: as there.
        require: properties, guarantees, or guarantee@space, that each has to have; a guarantee without a space is
            demanded in all three.
        notes: what a reader of the survey should know about it.
        progress: is told what comes next.

    Raises:
        SuiteError: nothing is given, or `require` has a name that nothing has.
    """
    chosen = list(candidates(given))
    if not chosen:
        raise SuiteError("There is no optimizer to measure; name one.")
    check_names(require)
    tell, reports = progress or (lambda what: None), []
    measured_once: dict[str, OptimizerReport] = {}  # a package may pass on what is another's, under a name of its own
    for number, candidate in enumerate(chosen, start=1):
        tell(f"{candidate.name} ({number} of {len(chosen)})")
        key = repr((candidate.make, sorted(candidate.kwargs.items()), candidate.manner, candidate.dtype_kwargs))
        if key not in measured_once:
            measured_once[key] = check_optimizer(candidate, router=router, seed=seed)
        reports.append(replace(measured_once[key], name=candidate.name, source=candidate.source, why=candidate.why))
    return Survey(
        reports=reports,
        required=list(require),
        notes=list(notes),
        versions={**versions(package_version()), "seed": str(seed)},
    )


def check_names(require: Collection[str]) -> None:
    """Raises SuiteError for what is neither a property nor a guarantee, alone or @ a space."""
    known = {*PROBES, *GUARANTEES, *(f"{name}@{space}" for name in GUARANTEES for space in SPACES)}
    for name in require:
        if name not in known:
            raise SuiteError(
                f"Nothing is called {name!r}; there are {', '.join((*PROBES, *GUARANTEES))}, the last "
                f"{len(GUARANTEES)} also with @{', @'.join(SPACES)}."
            )
