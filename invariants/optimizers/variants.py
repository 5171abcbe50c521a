"""What weight decay, clipping and float32 do to what was found."""

from collections.abc import Callable, Mapping, Sequence

import torch

from invariants.optimizers.candidate import Candidate
from invariants.optimizers.finding import Answer, Finding, not_measured
from invariants.optimizers.foreign import raised
from invariants.optimizers.guarantees import Runs, guarantees
from invariants.optimizers.probes import Laboratory, measured
from invariants.optimizers.routing import Arms
from invariants.optimizers.sequences import Drawn, Routed, drawn, routed
from reference import ClipPolicy, Space

DECAY = 0.1
AFFECTED = ("additive", "separable", "lr_proportional", "none_inert", "zeros_inert")  # probes that decay may change
NARROW = ("additive", "separable")  # probes that are looked at in float32 too
CLIPS: tuple[ClipPolicy, ...] = ("before", "joint")

Found = dict[str, Finding]  # a probe, or guarantee@space -> what was found


def variants(candidate: Candidate, on: Routed, plain: Drawn, seed: int, base: Found) -> dict[str, Found]:
    """Name of the variation -> what was found under it."""
    makers: dict[str, Callable[[], Found]] = {
        decay_name(candidate): lambda: decayed(candidate, on, plain),
        **{f"clip {clip}": lambda clip=clip: clipped(candidate, on, clip) for clip in CLIPS},  # type: ignore[misc]  # mypy can't type a lambda's default
        "float32": lambda: narrow(candidate, seed, base),
    }
    return {name: _tried(make) for name, make in makers.items()}


def _tried(make: Callable[[], Found]) -> Found:
    try:
        return make()
    except Exception as error:  # whatever a foreign optimizer raises
        return {"all": not_measured(f"raises {raised(error)}")}


def decay_name(candidate: Candidate) -> str:
    """Decay is added where there was none by default, and left out where there was."""
    return "without decay" if candidate.value_of("weight_decay") else f"decay {DECAY:g}"


def decayed(candidate: Candidate, on: Routed, plain: Drawn) -> Found:
    """With decay if it has none by default, and without if it has."""
    present = candidate.value_of("weight_decay")
    if not isinstance(present, int | float):
        return {"all": not_measured("it has no weight_decay that is a number")}
    other = candidate.having(weight_decay=0.0 if present else DECAY)
    laboratory = Laboratory(other, plain, neighbours=("none", "zeros"))
    return {name: measured(name, laboratory) for name in AFFECTED} | _spaces(
        Arms(other, on.without_refresh()), ("gradient", "displacement")
    )


def clipped(candidate: Candidate, on: Routed, clip: ClipPolicy) -> Found:
    """With a limit at the median norm, so that it fires in half of the steps."""
    on = on.without_refresh()
    limit = on.median_norm()
    fired = int((on.norms() > limit).sum())
    if not 0 < fired < len(on.norms()):
        return {"all": not_measured(f"the clip fired in {fired} of {len(on.norms())} steps")}
    # At a point a clip only makes other gradients, and those before it were as good as any.
    return _spaces(Arms(candidate, on), ("gradient",), clip=clip, max_norm=limit)


def narrow(candidate: Candidate, seed: int, base: Found) -> Found:
    """In float32, from starts at zero. What float64 has seen to be violated by less than rounding may be in float32 is
    not told by it."""
    laboratory = Laboratory(candidate, drawn(seed, torch.float32), neighbours=("zeros",))
    arms = Arms(candidate, routed(seed, torch.float32).without_refresh())
    found = {name: measured(name, laboratory) for name in NARROW}
    found |= _spaces(arms, ("gradient", "displacement"))
    return {name: _told_by_rounding(finding, base.get(name)) for name, finding in found.items()}


def _told_by_rounding(now: Finding, exactly: Finding | None) -> Finding:
    if exactly is None or exactly.answer is not Answer.VIOLATED or not now.holds:
        return now
    if (exactly.figure or 0.0) <= (now.bound or 0.0):
        return not_measured("rounding may be as large as what float64 has seen")
    return now


def _spaces(
    arms: Arms, spaces: Sequence[Space], *, clip: ClipPolicy = "before", max_norm: float | None = None
) -> Found:
    """At a point the deployed vectors of route and of erase are the same numbers by construction, and not run twice."""
    found: Found = {}
    for space in spaces:
        erase = space == "gradient"
        runs: Runs = arms.runs(space, clip=clip, max_norm=max_norm, erase=erase)
        measured_here = guarantees(runs, refreshed=False)
        found |= {f"{name}@{space}": f for name, f in measured_here.items() if erase or name != "erase_match"}
    return found


def changes(found: Mapping[str, Finding], base: Mapping[str, Finding]) -> dict[str, tuple[Finding, Finding]]:
    """What came out otherwise than in the base measurement: name -> (then, now)."""
    return {name: (base[name], now) for name, now in found.items() if name in base and base[name].answer != now.answer}
