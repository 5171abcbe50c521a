"""The probes of how an optimizer behaves: what it does with NaN, and what it does besides stepping."""

import inspect
import math

import torch
from torch import Tensor

from invariants.optimizers.finding import Answer, Finding, not_measured
from invariants.optimizers.foreign import foreign, raised
from invariants.optimizers.paths import Path, gap, judged, seeded, sizes
from invariants.optimizers.probes import APART, Laboratory, probe
from invariants.optimizers.runs import SEED, Running

STRUCK = 20  # the step at which one entry of a gradient is not finite
WATCH = 10  # steps that are looked at afterwards
SHORT = 20  # steps after which it is asked to evaluate; some warm up for as long
POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)
ASKED = 5  # steps in which closures are counted


@probe(theorem="T14")
def nonfinite(laboratory: Laboratory) -> Finding:
    """A gradient with NaN or infinity is refused with an exception, or the step is skipped; it is never swallowed."""
    outcomes = {str(value): _struck(laboratory, value) for value in (math.nan, math.inf)}
    told = {f"{value}: {what}" for value, (_, _, what) in outcomes.items()}
    whats = {what for _, _, what in outcomes.values()}
    note = whats.pop() if len(whats) == 1 else "; ".join(sorted(told))
    bad = [vector for fine, vector, _ in outcomes.values() if not fine]
    if not bad:
        return Finding(answer=Answer.HOLDS, note=note)
    return Finding(answer=Answer.VIOLATED, step=STRUCK, vector=bad[0], note=note)


def _struck(laboratory: Laboratory, value: float) -> tuple[bool, str | None, str]:
    """What one entry that is not finite does: whether that is fine, which vector suffers, and what happened."""
    drawn = laboratory.drawn
    with seeded(SEED):
        running = Running(laboratory.candidate, drawn.start)
        for t in range(STRUCK + WATCH):
            gradients = {name: g[t].clone() for name, g in drawn.b.items()}
            before = {name: p.detach().clone() for name, p in running.vectors.items()}
            if t + 1 == STRUCK:
                gradients[APART][0] = value
            try:
                running.step(gradients)
            except Exception as error:  # whatever a foreign optimizer raises
                if t + 1 < STRUCK:
                    raise
                moved = _moved(before, running)
                late = "" if t + 1 == STRUCK else f", {t + 1 - STRUCK} steps late"
                if late or moved:
                    return False, APART, f"swallowed, and then raises {raised(error)}{late}"
                return True, None, f"refused: {raised(error)}"
            if t + 1 == STRUCK:
                moved_at_once = _moved(before, running)
        ill = [name for name, p in running.vectors.items() if not bool(p.isfinite().all())]
    if ill:
        spread = [name for name in ill if name != APART]
        return False, ill[0], f"swallowed: not finite from then on{', and it spreads to others' if spread else ''}"
    if APART in moved_at_once:
        return False, APART, "swallowed: it moves on as if the number meant something"
    return True, None, "skipped" if not moved_at_once else "skipped for that vector, while the others move"


def _moved(before: dict[str, Tensor], running: Running) -> list[str]:
    return [name for name, p in running.vectors.items() if not torch.equal(before[name], p.detach())]


@probe(theorem="T12")
def only_steps_move(laboratory: Laboratory) -> Finding:
    """Only step() moves parameters: not the backward pass, not zero_grad(), and no switch to evaluation or back."""
    if laboratory.manner.backward:
        return Finding(answer=Answer.VIOLATED, step=1, vector=APART, note="moves them in backward")
    running = _after_some_steps(laboratory)
    before = _values(running)
    with foreign(), torch.enable_grad():
        weights = [g[0].view_as(own) for own, g in zip(running.held.own, laboratory.drawn.b.values(), strict=True)]
        torch.stack([(own * g).sum() for own, g in zip(running.held.own, weights, strict=True)]).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    found = gap(_values(running), before, 0.0, sizes(before))
    if found.step is not None:
        return Finding(**{**vars(judged(found, 0.0, "the backward pass moves them")), "step": SHORT})
    offered = [name for name in ("eval", "train", "zero_grad") if callable(getattr(running.held.optimizer, name, None))]
    for name in offered:
        before = _values(running)
        with foreign():
            getattr(running.held.optimizer, name)()
        found = gap(_values(running), before, 0.0, sizes(before))
        if found.step is not None:
            return Finding(**{**vars(judged(found, 0.0, f"{name}() moves them")), "step": SHORT})
    return Finding(answer=Answer.HOLDS, figure=0.0, bound=0.0, note=f"tried backward, {', '.join(offered)}")


def _after_some_steps(laboratory: Laboratory) -> Running:
    with seeded(SEED):
        running = Running(laboratory.candidate, laboratory.drawn.start)
        for t in range(SHORT):
            running.step({name: g[t] for name, g in laboratory.drawn.b.items()})
        return running


def _values(running: Running) -> Path:
    return {name: p.detach().clone()[None] for name, p in running.vectors.items()}


@probe(theorem="T12")
def evaluates_once(laboratory: Laboratory) -> Finding:
    """A closure is evaluated at most once in a step, so no second gradient is asked for where no split can reach."""
    with seeded(SEED):
        running = Running(laboratory.candidate, laboratory.drawn.start)
        held = running.held
        _, *parameters = inspect.signature(type(held.optimizer).step).parameters.values()
        if held.manner.backward or not any(p.kind in POSITIONAL for p in parameters):
            return not_measured("its step takes no closure")
        most, at = 0, None
        for t in range(ASKED):
            before = held.evaluations
            try:
                running.step({name: g[t] for name, g in laboratory.drawn.b.items()}, with_closure=True)
            except Exception as error:  # whatever a foreign optimizer raises
                if held.manner.closure:
                    raise
                return not_measured(f"refuses a closure: {raised(error)}")
            if held.evaluations - before > most:
                most, at = held.evaluations - before, t + 1
    needed = "it can't do without one" if held.manner.closure else ""
    answer = Answer.VIOLATED if most > 1 else Answer.HOLDS
    where = (at, APART) if most > 1 else (None, None)
    note = ", ".join(filter(None, [f"{most} evaluations a step", needed]))
    return Finding(answer=answer, figure=float(most), bound=1.0, step=where[0], vector=where[1], note=note)
