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
from invariants.optimizers.catalogue import PACKAGE, TORCH, everything, package_version
from invariants.optimizers.foreign import raised
from invariants.optimizers.paths import seeded
from invariants.optimizers.probes import PROBES, Laboratory, measured
from invariants.optimizers.report import OptimizerReport, Survey, check_names, versions
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
    dtype = torch.get_default_dtype()  # an optimizer may set another
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # what it says is not asked for
        warnings.simplefilter("ignore")
        try:
            report = _measured(_as_described(candidate), router, seed)
        finally:
            torch.set_default_dtype(dtype)
    return replace(report, advice=advice(report), seconds=time.perf_counter() - began)


def _as_described(candidate: Candidate) -> Candidate:
    """What the catalogue has may be handed in as a bare class, and is then called as its descriptor says."""
    module = str(getattr(candidate.make, "__module__", "")).split(".")[0]
    if candidate.manner is not None or module not in (TORCH, PACKAGE):
        return candidate
    for known in everything():
        if known.make is candidate.make:
            kwargs = {**known.kwargs, **candidate.kwargs}
            return replace(known, name=candidate.name, source=candidate.source, kwargs=kwargs)
    return candidate


def _measured(candidate: Candidate, router: Router | None, seed: int) -> OptimizerReport:
    on, gradients = routed(seed), drawn(seed)
    try:
        candidate = in_its_manner(candidate, gradients)
    except Exception as error:  # whatever a foreign optimizer raises
        return _report(candidate, problem=raised(error))
    laboratory = Laboratory(candidate, gradients)
    plain = replace(
        _report(candidate),
        probes={name: measured(name, laboratory) for name in PROBES},
        spaces=Arms(candidate, on).spaces(router),
    )
    return replace(plain, variants=variants(candidate, on, gradients, seed, plain.findings))


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
    known: dict[object, OptimizerReport] = {}  # a package may pass on what is another's, under a name of its own
    for number, candidate in enumerate(chosen, start=1):
        tell(f"{candidate.name} ({number} of {len(chosen)})")
        key = _identity(candidate)
        report = known.get(key) if key is not None else None
        report = report or check_optimizer(candidate, router=router, seed=seed)
        known[key] = report
        reports.append(replace(report, name=candidate.name, source=candidate.source, why=candidate.why))
    return Survey(
        reports=reports,
        required=list(require),
        notes=list(notes),
        versions={**versions(package_version()), "seed": str(seed)},
    )


def _identity(candidate: Candidate) -> object | None:
    """What two candidates have in common if they are the same optimizer; None if that can't be told."""
    if not all(isinstance(value, int | float | str | None) for value in candidate.kwargs.values()):
        return None
    kwargs = tuple(sorted(candidate.kwargs.items()))
    return (id(candidate.make), kwargs, candidate.manner, candidate.dtype_kwargs)
