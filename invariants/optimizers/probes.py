"""What an optimizer is, measured on gradients and never read off its name: the probes of an optimizer by itself.

With x(p, g) the path from start p on gradients g. The paths run over STEPS steps, so that what depends on the number of
steps (a warm-up, a rectification, a look-ahead, a global estimate of the learning rate) has shown itself.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from invariants.optimizers.candidate import PLAIN, Candidate, Manner
from invariants.optimizers.finding import Answer, Finding, not_measured
from invariants.optimizers.foreign import raised
from invariants.optimizers.paths import Path, gap, judged, moves, sizes, trajectory_bound
from invariants.optimizers.runs import PLAIN_RUN, SEED, Running, Variation, run
from invariants.optimizers.sequences import Drawn

FACTOR = 8.0  # of a gradient's size; a power of two, so that scaling it is exact
LOUD = 1e3
UP_TO_EPSILON = 1e-2
"""Within this a path is said not to depend on the size of the gradients. Optimizers that divide by a root mean square
add an epsilon to it, which the smallest gradients here, of about 1e-6, come to feel."""

WATCHED, APART = "drawn", "recorded"  # the vector that must not care, and the one that is silenced or made loud


Neighbour = Literal["none", "zeros", "others"]


class Laboratory:
    """One candidate on one set of starts and gradients; every run is made once.

    neighbours: what the other vector's gradients are in the runs that separability is read off.
    """

    def __init__(
        self, candidate: Candidate, drawn: Drawn, *, neighbours: Sequence[Neighbour] = ("none", "zeros", "others")
    ) -> None:
        self.candidate, self.drawn, self.neighbours = candidate, drawn, neighbours

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors."""
        return next(iter(self.drawn.start.values())).dtype

    @property
    def manner(self) -> Manner:
        """In which the candidate is called."""
        return self.candidate.manner or PLAIN

    @property
    def bound(self) -> float:
        """For two paths that are equal in exact arithmetic."""
        return trajectory_bound(len(self.drawn.b[APART]), self.dtype)

    def path(self, gradients: Mapping[str, Tensor], variation: Variation = PLAIN_RUN) -> Path:
        """From the drawn start."""
        return run(self.candidate, self.drawn.start, gradients, variation)

    @cached_property
    def plain(self) -> Path:
        """x(p, b)."""
        return self.path(self.drawn.b)

    @property
    def moved(self) -> bool:
        """Whether the plain run went farther than rounding could take it."""
        there, far = sizes(self.plain), sizes(moves(self.plain))
        return any(far[name] > self.bound * there[name] for name in there)

    @cached_property
    def silenced(self) -> Path:
        """x(p, b), where one vector never has a gradient."""
        return self.path(self.drawn.b, Variation(silent=(APART,)))

    @cached_property
    def zeroed(self) -> Path:
        """x(p, b), where the gradients of one vector are zeros."""
        return self.path({**self.drawn.b, APART: torch.zeros_like(self.drawn.b[APART])})

    @cached_property
    def loud(self) -> Path:
        """x(p, b), where one vector has other gradients, a thousand times as large."""
        return self.path({**self.drawn.b, APART: LOUD * self.drawn.a[APART]})

    @cached_property
    def beside_loud(self) -> Path:
        """x(p, b), where the vector that is watched otherwise has other gradients, a thousand times as large."""
        return self.path({**self.drawn.b, WATCHED: LOUD * self.drawn.a[WATCHED]})

    def beside(self, neighbour: Neighbour) -> Path:
        """x(p, b), where one vector has such gradients."""
        return {"none": lambda: self.silenced, "zeros": lambda: self.zeroed, "others": lambda: self.loud}[neighbour]()

    @cached_property
    def larger(self) -> Path:
        """x(p, FACTOR b)."""
        return self.path({name: FACTOR * g for name, g in self.drawn.b.items()})

    @cached_property
    def unimpressed(self) -> bool:
        """Whether another seed, a generator of parameters in another order, and a new optimizer before every step, all
        at once, leave every bit of the path as it was.

        Groups of their own are not among them: a list of groups would hide from the optimizer that a generator came,
        and a group of one that its state came back in another order.
        """
        everything = Variation(
            seed=SEED + 1, as_generator=not self.manner.model, reloaded=True, order=self.drawn.backwards
        )
        try:
            return gap(self.path(self.drawn.b, everything), self.plain, 0.0, sizes(self.plain)).figure == 0
        except Exception:  # whatever a foreign optimizer raises; the single runs will tell
            return False


Measure = Callable[[Laboratory], Finding]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A property by name, what it states, and how it is measured."""

    name: str
    theorem: str
    statement: str
    measure: Measure


PROBES: dict[str, Probe] = {}


def probe(*, theorem: str = "") -> Callable[[Measure], Measure]:
    """Registers a measurement; the first paragraph of its docstring is the statement, its name the property's."""

    def register(measure: Measure) -> Measure:
        statement = " ".join(inspect.cleandoc(measure.__doc__ or "").split("\n\n")[0].split())
        name = measure.__name__
        PROBES[name] = Probe(name=name, theorem=theorem, statement=statement, measure=measure)
        return measure

    return register


def measured(name: str, laboratory: Laboratory) -> Finding:
    """One property; what the optimizer raises only under the conditions of this probe is a violation.

    Of an optimizer that moves nothing, or no more than rounding, only that is said: nothing else could have come out
    otherwise.
    """
    try:
        if name != moves_all.__name__ and not laboratory.moved:
            return not_measured("it moves no farther than rounding may")
        return PROBES[name].measure(laboratory)
    except Exception as error:  # whatever a foreign optimizer raises
        return Finding(answer=Answer.VIOLATED, note=f"raises {raised(error)}")


@probe()
def moves_all(laboratory: Laboratory) -> Finding:
    """Under its own defaults it moves every vector that has gradients, and leaves finite numbers."""
    path = laboratory.plain
    still = [name for name, values in path.items() if not bool((values != values[0]).any())]
    wild = gap({n: (~values.isfinite()).double() for n, values in path.items()}, zeros_like(path), 0.0, ones(path))
    if wild.step is not None:
        note = "leaves the finite numbers"
        return Finding(answer=Answer.VIOLATED, step=wild.step, vector=wild.vector, note=note)
    farthest = max(float(values.abs().max()) for values in moves(path).values())
    answer = Answer.VIOLATED if still else Answer.HOLDS
    return Finding(
        answer=answer, figure=farthest, vector=still[0] if still else None, note="does not move" * bool(still)
    )


@probe(theorem="T9")
def additive(laboratory: Laboratory) -> Finding:
    """One step is linear in (gradient, parameter, state) jointly: x(0, a) + x(p, b) = x(p, a + b)."""
    drawn = laboratory.drawn
    zero = {name: torch.zeros_like(p) for name, p in drawn.start.items()}
    from_zero = run(laboratory.candidate, zero, drawn.a)
    both = laboratory.path({name: drawn.a[name] + b for name, b in drawn.b.items()})
    total = {name: path + from_zero[name] for name, path in laboratory.plain.items()}
    found = gap(total, both, laboratory.bound, sizes(from_zero, laboratory.plain, both))
    return judged(found, laboratory.bound)


@probe(theorem="T10")
def separable(laboratory: Laboratory) -> Finding:
    """A vector moves as it does, bit for bit, whatever gradients the others have, or none."""
    found, scale = [], sizes(laboratory.plain)
    pairs = [(what, WATCHED, laboratory.beside(what)) for what in laboratory.neighbours]
    if "others" in laboratory.neighbours:
        pairs.append(("others", APART, laboratory.beside_loud))  # the other way round, for who comes first may matter
    for what, watched, path in pairs:
        apart = gap(only(watched, path), only(watched, laboratory.plain), 0.0, scale)
        found.append(judged(apart, 0.0, "" if apart.step is None else f"if another vector's gradients are {what}"))
    return max(found, key=lambda finding: finding.figure or 0.0)


@probe()
def homogeneous(laboratory: Laboratory) -> Finding:
    """Gradients that are eight times as large move it eight times as far."""
    return _scaled(laboratory, FACTOR, laboratory.bound)


@probe()
def scale_free(laboratory: Laboratory) -> Finding:
    """Gradients that are eight times as large move it just as far, up to an epsilon."""
    return _scaled(laboratory, 1.0, max(UP_TO_EPSILON, laboratory.bound))


def _scaled(laboratory: Laboratory, by: float, bound: float) -> Finding:
    plain, larger = moves(laboratory.plain), moves(laboratory.larger)
    exponent = math.log(length(larger) / length(plain), FACTOR) if length(larger) and length(plain) else 0.0
    note = f"the distance grows like the size of the gradients to the power {exponent:.2g}"
    return _as_far(laboratory, larger, {name: by * path for name, path in plain.items()}, bound, note)


def _as_far(laboratory: Laboratory, moved: Path, expected: Path, bound: float, note: str) -> Finding:
    """Whether two motions are equal: up to bound of the larger, and up to the rounding of where they began."""
    rounding = {name: laboratory.bound / bound * size for name, size in sizes(laboratory.plain).items()}
    scale = {name: size + rounding[name] for name, size in sizes(moved, expected).items()}
    return judged(gap(moved, expected, bound, scale), bound, note)


@probe()
def lr_proportional(laboratory: Laboratory) -> Finding:
    """Twice the learning rate moves it twice as far."""
    groups = Running(laboratory.candidate, laboratory.drawn.start).held.optimizer.param_groups
    if not all("lr" in group for group in groups):
        return not_measured("its parameter groups have no lr")
    plain, twice = moves(laboratory.plain), moves(laboratory.path(laboratory.drawn.b, Variation(lr_factor=2.0)))
    ratio = length(twice) / length(plain) if length(plain) else 0.0
    expected = {name: 2 * path for name, path in plain.items()}
    return _as_far(laboratory, twice, expected, laboratory.bound, f"it moves {ratio:.3g} times as far")


@probe(theorem="T13")
def none_inert(laboratory: Laboratory) -> Finding:
    """A vector that has never had a gradient (None) never moves."""
    return _stays(laboratory.silenced)


@probe()
def zeros_inert(laboratory: Laboratory) -> Finding:
    """A vector whose gradients are zeros never moves (decay, noise or a norm would move it)."""
    return _stays(laboratory.zeroed)


def _stays(path: Path) -> Finding:
    still = only(APART, path)
    return judged(gap(still, {APART: still[APART][:1].expand_as(still[APART])}, 0.0, sizes(still)), 0.0)


@probe()
def repeats(laboratory: Laboratory) -> Finding:
    """The same seed gives the same bits."""
    return _same(laboratory, PLAIN_RUN)


@probe()
def draws_nothing(laboratory: Laboratory) -> Finding:
    """Another seed of the global generators gives the same bits: it draws no random numbers from them."""
    return _same(laboratory, Variation(seed=SEED + 1))


@probe(theorem="T14")
def resumes(laboratory: Laboratory) -> Finding:
    """Its state_dict is exact at every step: with a new optimizer loaded before each, the path is the same bits."""
    return _same(laboratory, Variation(reloaded=True))


@probe()
def takes_generators(laboratory: Laboratory) -> Finding:
    """Parameters that are handed over as a generator are moved as those in a list, to the bit."""
    if laboratory.manner.model:
        return not_measured("it takes a module")
    return _same(laboratory, Variation(as_generator=True))


@probe()
def order_free(laboratory: Laboratory) -> Finding:
    """The order of the parameters does not matter, up to rounding."""
    return _same(laboratory, Variation(order=laboratory.drawn.backwards), laboratory.bound)


@probe()
def groups_free(laboratory: Laboratory) -> Finding:
    """Parameters in a group each move as those in one group, up to rounding."""
    if laboratory.manner.model:
        return not_measured("it makes its parameter groups itself")
    return _compared(laboratory, Variation(apart=True), laboratory.bound)


def _same(laboratory: Laboratory, variation: Variation, bound: float = 0.0) -> Finding:
    """Whether a variation changes nothing. Most optimizers pass all of them at once, in one run; only where that run
    is another one are they told apart, in a run for each."""
    if laboratory.unimpressed:
        return Finding(answer=Answer.HOLDS, figure=0.0, bound=bound)
    return _compared(laboratory, variation, bound)


def _compared(laboratory: Laboratory, variation: Variation, bound: float) -> Finding:
    found = gap(laboratory.path(laboratory.drawn.b, variation), laboratory.plain, bound, sizes(laboratory.plain))
    rounded = "up to rounding" if found.figure > 0 and found.step is None else ""
    return judged(found, bound, rounded)


@probe()
def paths_agree(laboratory: Laboratory) -> Finding:
    """Its implementations (a loop over parameters, foreach, fused) agree, up to rounding."""
    offered = [name for name in ("foreach", "fused") if laboratory.candidate.accepts(name)]
    if not offered:
        return not_measured("its constructor takes neither foreach nor fused")

    def path(chosen: str) -> Path:
        flags = {name: name == chosen for name in offered}
        return run(laboratory.candidate.having(**flags), laboratory.drawn.start, laboratory.drawn.b)

    loop, found, refused = path("loop"), [], []
    for name in offered:
        try:
            other = path(name)
        except Exception as error:  # whatever a foreign optimizer raises
            refused.append(f"{name} raises {raised(error)}")
            continue
        apart = gap(other, loop, laboratory.bound, sizes(loop))
        found.append(judged(apart, laboratory.bound, f"{name} against the loop"))
    if not found:
        return not_measured("; ".join(refused))
    worst = max(found, key=lambda finding: finding.figure or 0.0)
    note = worst.note if worst.figure else f"the same bits as the loop: {', '.join(offered)}"
    return Finding(**{**vars(worst), "note": "; ".join([note, *refused])})


def only(name: str, path: Path) -> Path:
    """One of the vectors."""
    return {name: path[name]}


def zeros_like(path: Path) -> Path:
    """As many zeros."""
    return {name: torch.zeros_like(values, dtype=torch.float64) for name, values in path.items()}


def ones(path: Path) -> dict[str, float]:
    """No scale."""
    return dict.fromkeys(path, 1.0)


def length(path: Path) -> float:
    """Of what a path ends at, over all vectors."""
    return math.sqrt(sum(float(values[-1].double().square().sum()) for values in path.values()))
