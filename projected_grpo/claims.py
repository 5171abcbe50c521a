"""Which guarantees a configuration keeps, as theorems with their hypotheses, and where they end.

    keeps_sum             deployed + quarantine follow what vanilla training would do on the same gradients
    erase_match           under route the deployed vectors are what they are under erase on the same gradients
    covers_both           after the clip, the norm over everything that is fed is at most max_norm
    span                  the quarantine stays in the span of the basis, while the basis is fixed
    no_update_leak        no single change of a deployed vector is hack-ward: V(-Δ) <= 0
    no_displacement_leak  what a deployed vector has learned is not hack-ward: V(-(deployed - start)) <= 0
    no_ratchet            noise drives no deployed vector along the basis: |V(deployed - start)| <= that of vanilla
    unbiased              the split gives noise no mean: independent g, as likely as -g, move no deployed vector along
                          the basis on average

and from the first step after a refresh on, along the new basis:

    refreshed_span, refreshed_update, refreshed_displacement      span, no_update_leak and no_displacement_leak

All are statements in exact arithmetic; rounding is bounded by the split's own bounds. The quarantine starts at zero.
They are about the same gradient sequence: end to end, arms differ because each samples from its own model. Only what is
a theorem is claimed, so a "no" means "not guaranteed", and a short run may well keep it.
"""

from typing import Literal, NamedTuple, get_args

from projected_grpo.clip import ClipPolicy
from projected_grpo.probes import Measured
from projected_grpo.routing import Intervention, Routing, Space
from projected_grpo.split import SplitRule

Guarantee = Literal[
    "keeps_sum", "erase_match", "covers_both", "span", "no_update_leak", "no_displacement_leak", "no_ratchet",
    "unbiased", "refreshed_span", "refreshed_update", "refreshed_displacement",
]  # fmt: skip
LEAKS: tuple[Guarantee, ...] = (
    "no_update_leak", "no_displacement_leak", "refreshed_update", "refreshed_displacement"
)  # fmt: skip


class Claim(NamedTuple):
    """Whether a guarantee holds, and the theorem, or the hypothesis that is missing."""

    holds: bool
    why: str


def guarantees(
    *,
    space: Space,
    clip: ClipPolicy,
    rule: SplitRule,
    linear: bool,
    separable: bool,
    isotropic: bool,
    nonnegative: bool,
    max_norm_set: bool,
    equal_hyperparameters: bool = True,
    intervention: Intervention = "route",
    retained: float = 1.0,
) -> dict[Guarantee, Claim]:
    """The truth table, one configuration at a time.

    Arguments:
        space, clip, rule, intervention, retained: the settings of the step.
        linear, separable, isotropic, nonnegative: what the base optimizer is, see `probes`.
        max_norm_set: whether anything is clipped at all.
        equal_hyperparameters: whether both vectors of each pair are stepped with the same options.
    """
    if intervention == "none":
        return _nothing_split()
    one_point = space != "gradient"
    clips: ClipPolicy | None = clip if max_norm_set else None
    claims: dict[Guarantee, Claim] = {
        "keeps_sum": _keeps_sum(one_point, clips, rule, linear and separable, equal_hyperparameters),
        "erase_match": _erase_match(one_point, clips, separable),
        "covers_both": _covers_both(clips, erase=intervention == "erase"),
        "span": _span(one_point, linear and separable and isotropic),
        "no_update_leak": _no_update_leak(space, rule, linear and separable and isotropic and nonnegative),
        "no_displacement_leak": _no_displacement_leak(space, rule, linear and separable and isotropic and nonnegative),
        "no_ratchet": _no_ratchet(space, clips, rule, linear and separable and isotropic and nonnegative),
        "unbiased": _unbiased(space, rule, linear and separable),
        "refreshed_span": _refreshed_span(space),
        "refreshed_update": _refreshed_update(space, rule),
        "refreshed_displacement": _refreshed_displacement(space, rule),
    }
    if intervention == "erase":
        claims["keeps_sum"] = Claim(False, "erase drops what it removes")
        for name in ("span", "refreshed_span"):
            claims[name] = Claim(True, "inertness: without a gradient the quarantine never moves")
    if retained < 1:
        claims["erase_match"] = Claim(False, "erase forgets a part of what it drops, and route's point keeps all of it")
        if not _nothing_along_the_basis(rule):
            claims["no_ratchet"] = Claim(False, "the point forgets a part of what is dropped, so it is not vanilla's")
    return claims


def _nothing_split() -> dict[Guarantee, Claim]:
    kept = Claim(True, "nothing is split: the step is the base optimizer's")
    leaks = Claim(False, "nothing is split, so updates go where the loss points, hack-ward or not")
    return {name: leaks if name in LEAKS else kept for name in get_args(Guarantee)}


def _keeps_sum(
    one_point: bool, clips: ClipPolicy | None, rule: SplitRule, superposes: bool, equal_hyperparameters: bool
) -> Claim:
    if rule.preserve_magnitude:
        return Claim(False, "preserve_magnitude rescales the kept part, so the split conserves nothing")
    if one_point:
        return Claim(True, "conservation of the split, and one optimizer that sees the unsplit gradient")
    if not superposes:
        return Claim(False, "two states keep the sum only if the optimizer is linear and treats parameters separately")
    if not equal_hyperparameters:
        return Claim(False, "the two vectors of a pair are stepped with different hyperparameters")
    if clips in ("separate", "deployed_only"):
        return Claim(False, f"{clips} scales the two parts by different factors when it fires")
    if clips == "before" and rule.strength > 1:
        return Claim(False, "the parts are longer than the gradient, so the limit scales them once more than vanilla")
    if clips == "joint" and rule.strength != 1:
        return Claim(False, "the parts' joint norm is not the gradient's, so the limit fires elsewhere than vanilla's")
    return Claim(True, "superposition: a linear optimizer moves a sum of gradients by the sum of the moves")


def _erase_match(one_point: bool, clips: ClipPolicy | None, separable: bool) -> Claim:
    if one_point:
        return Claim(True, "the point is the same under both, and so is its split")
    if not separable:
        return Claim(False, "the optimizer couples parameters, so the quarantine's gradient reaches the deployed one")
    if clips == "joint":
        return Claim(False, "route clips by the joint norm and erase by the kept part's alone")
    return Claim(True, "separate states, and both feed the deployed vectors the same gradient")


def _covers_both(clips: ClipPolicy | None, *, erase: bool) -> Claim:
    if clips is None:
        return Claim(True, "no clip was asked for")
    if erase:
        return Claim(True, "the kept part is all that is fed, and every policy limits it")
    if clips in ("before", "joint"):
        return Claim(True, "one norm over all that is fed, and one factor")
    if clips == "separate":
        return Claim(False, "each set may be as long as the limit, so both together sqrt(2) times")
    return Claim(False, "the quarantine is not clipped")


def _span(one_point: bool, weighted_sum: bool) -> Claim:
    if one_point:
        return Claim(True, "what is written to the quarantine is a removed part itself")
    if weighted_sum:
        return Claim(True, "the quarantine is a weighted sum of removed parts")
    return Claim(False, "the optimizer rotates the removed parts out of the span (a preconditioner does)")


def _gate_lets_through(rule: SplitRule) -> str | None:
    """Why V · kept <= 0 fails, or None if it holds; a positive rescaling of kept does not change its sign."""
    if rule.remembers:
        return "an axis that is not open yet lets hack-ward components through"
    if rule.gate == "one_sided" and rule.strength >= 1:
        return None
    if rule.gate != "one_sided" and rule.strength == 1:
        return None
    return f"{rule.gate} with overshoot {rule.overshoot:g} keeps hack-ward components"


def _no_update_leak(space: Space, rule: SplitRule, nonnegative_sum: bool) -> Claim:
    through = _gate_lets_through(rule)
    if through is not None:
        return Claim(False, through)
    if space == "update":
        return Claim(True, "one-sidedness of the split, applied to the update itself")
    if space == "displacement":
        return Claim(False, "the displacement is rectified, and a single update may still be hack-ward")
    if nonnegative_sum:
        return Claim(True, "every update is a non-negative sum of kept gradients, none of them hack-ward")
    return Claim(
        False, "an update is no non-negative sum of kept gradients (preconditioner, decay or negative weights)"
    )


def _no_displacement_leak(space: Space, rule: SplitRule, nonnegative_sum: bool) -> Claim:
    through = _gate_lets_through(rule)
    if through is not None:
        return Claim(False, through)
    if space == "displacement":
        return Claim(True, "one-sidedness of the split, applied to the displacement itself")
    if space == "update":
        return Claim(True, "a sum of updates that are not hack-ward, while the basis is fixed")
    if nonnegative_sum:
        return Claim(True, "a sum of updates that are not hack-ward, while the basis is fixed")
    return Claim(False, "updates may be hack-ward, and nothing takes that back")


def _nothing_along_the_basis(rule: SplitRule) -> bool:
    """Whether V · kept = 0 at every step."""
    return rule.gate in ("no_gate", "reverse") and rule.strength == 1


def _no_ratchet(space: Space, clips: ClipPolicy | None, rule: SplitRule, nonnegative_sum: bool) -> Claim:
    """V kept = c - strength · gate(c): of one displacement at most |c|, and over many steps a sum if that is linear."""
    if _nothing_along_the_basis(rule):
        if space != "gradient" or nonnegative_sum:
            return Claim(True, "nothing along the basis is ever kept")
        return Claim(False, "the optimizer turns what was kept back to the basis (a preconditioner or decay does)")
    if rule.preserve_magnitude:
        return Claim(False, "preserve_magnitude stretches what is kept along the basis")
    if rule.strength > 2:
        return Claim(False, f"{rule.gate} with overshoot {rule.overshoot:g} reverses a component to more than it was")
    if space == "displacement":
        return Claim(True, "the split of one displacement keeps at most what it finds, and adds nothing up")
    if rule.gate == "one_sided":
        return Claim(False, "relu of noise has a positive mean, which adds up from step to step")
    if rule.remembers:
        return Claim(False, "a gate that looks back may be open at every step back, and closed at every step forth")
    if space == "update":
        return Claim(True, "a linear gate keeps the same share of vanilla's every update")
    if clips not in (None, "before") or (clips == "before" and rule.strength > 1):
        return Claim(False, "the clip scales what is kept by other factors than vanilla's gradient")
    if nonnegative_sum:
        return Claim(True, "a linear gate keeps the same share of vanilla's every gradient")
    return Claim(False, "the optimizer turns what was kept back to the basis (a preconditioner or decay does)")


def _unbiased(space: Space, rule: SplitRule, superposes: bool) -> Claim:
    """A clip's factor is the same for a gradient and its negative, so it changes no mean of 0."""
    if rule.gate == "one_sided":
        return Claim(False, "relu of noise has a positive mean, whatever is split")
    if _nothing_along_the_basis(rule) and space != "gradient":
        return Claim(True, "nothing along the basis is ever kept")
    if not superposes:
        return Claim(False, "an optimizer that is not linear need not average noise out")
    if rule.preserve_magnitude:
        return Claim(False, "preserve_magnitude is not linear in what is split")
    if not rule.remembers:
        return Claim(True, "a linear gate keeps a share of what is split, and noise splits into noise")
    if space == "gradient":
        return Claim(True, "the past decides which axes are open, and given that the gate is linear: a martingale")
    return Claim(False, f"the {space} is not independent of those before it, so the gate sees it coming")


def _refreshed_span(space: Space) -> Claim:
    if space == "displacement":
        return Claim(True, "all that was learned is split anew along the basis in force")
    return Claim(False, "what was routed along the last basis stays in the quarantine")


def _refreshed_update(space: Space, rule: SplitRule) -> Claim:
    through = _gate_lets_through(rule)
    if through is not None:
        return Claim(False, through)
    if space == "update":
        return Claim(True, "every update is split by itself, along the basis in force")
    if space == "displacement":
        return Claim(False, "the step after a refresh sets right what was learned before, in any direction")
    return Claim(False, "the optimizer's memory may carry what the last basis let through")


def _refreshed_displacement(space: Space, rule: SplitRule) -> Claim:
    through = _gate_lets_through(rule)
    if through is not None:
        return Claim(False, through)
    if space == "displacement":
        return Claim(True, "all that was learned is split anew along the basis in force")
    return Claim(False, "what was learned along the new basis before the refresh stays where it is")


def claims_of(routing: Routing, measured: Measured, *, equal_hyperparameters: bool = True) -> dict[Guarantee, Claim]:
    """`guarantees` of settings and a measured optimizer."""
    return guarantees(
        space=routing.space,
        clip=routing.clip,
        rule=routing.rule,
        linear=measured.linear,
        separable=measured.separable,
        isotropic=measured.isotropic,
        nonnegative=measured.nonnegative,
        max_norm_set=routing.max_norm is not None,
        equal_hyperparameters=equal_hyperparameters,
        intervention=routing.intervention,
        retained=routing.retained,
    )


def explanation(routing: Routing, measured: Measured, *, equal_hyperparameters: bool = True) -> str:
    """The table as plain text: a line about the settings, one about the optimizer, one for each guarantee."""
    if measured.problem is not None:
        about = measured.problem
    elif not measured.moved:
        about = "The base optimizer did not move its probes (is the learning rate zero?), so nothing is claimed of it."
    else:
        about = "Base optimizer, measured: " + ", ".join(
            f"{'' if getattr(measured, name) else 'not '}{name} ({residual:.0e})"
            for name, residual in measured.residuals.items()
        )
    claims = claims_of(routing, measured, equal_hyperparameters=equal_hyperparameters)
    lines = [f"{name:<24}{'yes' if claim.holds else 'no':<5}{claim.why}" for name, claim in claims.items()]
    notes = []
    if routing.intervention == "erase" and routing.moves_the_point:
        runs_away = "what erase drops, and may run away from the model that is seen; a retained share below 1 bounds it"
        bounded = f"{routing.retained:g} of what erase drops, and so stays near the model that is seen"
        notes = [f"Windup: the optimizer's point keeps {runs_away if routing.retained == 1 else bounded}."]
    return "\n".join([str(routing), about, "", *lines, *notes])
