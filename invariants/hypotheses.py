"""The hypotheses of the theorems, as predicates on settings: why a theorem says nothing, or None where it does."""

from collections.abc import Callable

from invariants.contracts import SplitSetting, StepSetting, label_of
from reference import SGD, AdamW, SplitRule

RESCALES = "preserve_magnitude rescales what is kept"


def restores_the_sum(rule: SplitRule) -> str | None:
    """kept + removed = g needs both parts unscaled."""
    return RESCALES if rule.preserve_magnitude else None


def is_a_projection(rule: SplitRule) -> str | None:
    """Orthogonal parts need each row's component removed once, or not at all."""
    if rule.preserve_magnitude:
        return RESCALES
    if rule.overshoot != 1:
        return f"overshoot {rule.overshoot:g} is no projection"
    return "reverse removes twice the component" if rule.gate == "reverse" else None


def strength(rule: SplitRule) -> float:
    """How much of a coefficient that passes the gate is removed; 1 is all of it."""
    return rule.overshoot * (2 if rule.gate == "reverse" else 1)


def removes_all_at_once(rule: SplitRule) -> str | None:
    """After one pass no component is left that the gate would let through, and rounding is not blown up."""
    if rule.preserve_magnitude:
        return "preserve_magnitude blows rounding up where little is kept"
    if rule.gate == "predictable":
        return "the predictable gate leaves what it has not seen coming"
    if strength(rule) == 1 or (rule.gate == "one_sided" and strength(rule) > 1):
        return None
    return f"{rule.gate} with overshoot {rule.overshoot:g} leaves a component that is removed again"


def leaves_a_known_remainder(rule: SplitRule) -> str | None:
    """V kept has the stated form at overshoot 1 only."""
    if rule.preserve_magnitude:
        return RESCALES
    return None if rule.overshoot == 1 else f"overshoot {rule.overshoot:g} leaves another component"


def is_linear(rule: SplitRule) -> str | None:
    """Additivity needs a linear gate."""
    if rule.preserve_magnitude:
        return "preserve_magnitude is not linear"
    return "relu is not additive" if rule.gate == "one_sided" else None


def rescales(rule: SplitRule) -> str | None:
    """Only preserve_magnitude promises a length."""
    return None if rule.preserve_magnitude else "nothing is rescaled without preserve_magnitude"


def of_rule(hypothesis: Callable[[SplitRule], str | None]) -> Callable[[SplitSetting | StepSetting], str | None]:
    """A hypothesis on the rule alone, asked of a whole setting."""
    return lambda setting: hypothesis(setting.rule)


def runs(*interventions: str) -> Callable[[StepSetting], str | None]:
    """The loop must have these arms."""

    def reason(setting: StepSetting) -> str | None:
        missing = [i for i in interventions if i not in setting.interventions]
        return f"the loop has no {' and no '.join(missing)}" if missing else None

    return reason


def splits(*others: str) -> Callable[[StepSetting], str | None]:
    """The loop must have an arm that splits, and these."""

    def reason(setting: StepSetting) -> str | None:
        return runs(*others, setting.splitting or "route")(setting)

    return reason


def calls_are_constant(setting: StepSetting) -> str | None:
    """Whoever loops over modules is as right, and says nothing of the kind."""
    if not setting.constant_calls:
        return "the loop does not say that its calls are constant"
    return splits()(setting)


def has_a_clip(setting: StepSetting) -> str | None:
    """There must be something that limits the norm."""
    return None if setting.clip else "the loop has no clip"


def scales_both_alike(setting: StepSetting) -> str | None:
    """One common factor for both sets."""
    if setting.clip in ("separate", "deployed_only"):
        return f"clip {setting.clip!r} scales the two sets apart"
    return has_a_clip(setting) or runs("route")(setting)


def limits_all_that_is_fed(setting: StepSetting) -> str | None:
    """Where two sets are fed, one factor must limit them both; where one is, every policy does."""
    return has_a_clip(setting) if setting.splitting == "erase" else scales_both_alike(setting)


def scales_all_alike(setting: StepSetting) -> str | None:
    """As before, and nothing else may depend on the limit."""
    if setting.space == "gradient" and setting.rule.gate == "predictable":
        return "what a limit has shortened weighs less in what the predictable gate remembers"
    return scales_both_alike(setting)


def limits_the_gradient(setting: StepSetting) -> str | None:
    """A gradient above the limit must be fed shortened: the parts, where they are clipped, are as long as it is."""
    if setting.clip == "joint" and (reason := is_a_projection(setting.rule)):
        return f"{reason}, so the parts may be shorter than the gradient"
    return scales_both_alike(setting)


def keeps_the_norm(setting: StepSetting) -> str | None:
    """What is fed must be, together, as long as the clipped gradient."""
    if setting.space == "gradient" and (reason := is_a_projection(setting.rule)):
        return reason
    return scales_both_alike(setting)


def splits_gradients(setting: StepSetting) -> str | None:
    """Two gradients must be fed, that are orthogonal parts of one."""
    if setting.space != "gradient":
        return f"in {setting.space} space one unsplit gradient is fed"
    return is_a_projection(setting.rule) or runs("route")(setting)


def is_clipped_as_vanilla(setting: StepSetting) -> str | None:
    """A clip that fires under route must scale everything as it scales vanilla's gradient."""
    if setting.space != "gradient" or setting.clip is None:
        return None
    if setting.clip in ("separate", "deployed_only"):
        return f"clip {setting.clip!r} scales by the norms of the parts"
    if setting.rule.preserve_magnitude:
        return RESCALES
    if strength(setting.rule) > 1:
        return f"{label_of(setting.rule)} makes parts longer than the gradient, so the limit scales them once more"
    if setting.clip == "joint" and strength(setting.rule) != 1:
        return f"{label_of(setting.rule)} makes parts shorter than the gradient, so the limit is reached elsewhere"
    return None


def can_keep_the_sum(setting: StepSetting) -> str | None:
    """The parts must add up, and be clipped as vanilla's gradient is."""
    if setting.rule.preserve_magnitude:
        return RESCALES
    return is_clipped_as_vanilla(setting) or runs("none", "route")(setting)


def can_match_erase(setting: StepSetting) -> str | None:
    """The clip must see the same norms in both arms."""
    if setting.clip == "joint":
        return "clip 'joint' scales erase by a norm without the removed part"
    if setting.retained != 1:
        return "erase forgets a part of what it drops"
    return runs("erase", "route")(setting)


def removes_the_component(setting: StepSetting) -> str | None:
    """Nothing hack-ward may be left by one split."""
    return removes_all_at_once(setting.rule) or splits("none")(setting)


def keeps_nothing_along(rule: SplitRule) -> bool:
    """Whether V kept = 0 at every step."""
    return rule.gate in ("no_gate", "reverse") and strength(rule) == 1


def cannot_ratchet(setting: StepSetting) -> str | None:
    """What is kept along V must follow vanilla, and not the noise; who claims by name that it does is held to it.

    V kept = c - strength * gate(c) per axis. Of a whole displacement that is at most |c| up to strength 2. Added up
    over steps it is (1 - strength) times vanilla's, if the gate is linear and both are clipped alike.
    """
    if (reason := splits("none")(setting)) or "optimizer.no_ratchet" in (setting.claims or ()):
        return reason
    rule = setting.rule
    if keeps_nothing_along(rule):
        return None  # however it is scaled
    if setting.retained != 1:
        return "the point forgets a part of what is dropped, so it is not vanilla's"
    if rule.preserve_magnitude:
        return RESCALES
    if strength(rule) > 2:
        return f"{label_of(rule)} reverses a component to more than it was"
    if setting.space == "displacement":
        return None
    if rule.gate == "one_sided":
        return f"relu of noise has a positive mean, which adds up in {setting.space} space"
    if rule.gate == "predictable":
        return "in pairs each step foretells the next, so the gate is open at every step back"
    return is_clipped_as_vanilla(setting)


def averages_noise_out(setting: StepSetting) -> str | None:
    """What is kept must be linear in noise, given what was seen before it."""
    rule = setting.rule
    if rule.gate == "one_sided":
        return "relu of noise has a positive mean"
    if rule.preserve_magnitude:
        return RESCALES
    if rule.gate == "predictable" and setting.space != "gradient":
        return f"the {setting.space} is not independent of those before it, so the gate sees it coming"
    return splits("none")(setting)


def rectifies_gradients(setting: StepSetting) -> str | None:
    """One-sided gradients under an optimizer of which it is known how it adds them up."""
    if setting.space != "gradient" or setting.rule.gate != "one_sided":
        return f"{setting.rule.gate} in {setting.space} space rectifies no gradients"
    return adds_gradients_up(setting)


def splits_a_sum(setting: StepSetting) -> str | None:
    """What is split must be a known sum of all gradients so far."""
    if setting.space != "displacement":
        return f"in {setting.space} space each step is split by itself"
    if setting.retained != 1:
        return "the point forgets a part of what is dropped, so it is no sum of gradients"
    return adds_gradients_up(setting)


def adds_gradients_up(setting: StepSetting) -> str | None:
    """SGD, of which the weights of a sum of gradients are known, and parts that are not rescaled."""
    if not isinstance(setting.reference, SGD):
        return "the setting names no SGD as its reference optimizer"
    return restores_the_sum(setting.rule) or splits("none")(setting)


def looks_back(setting: StepSetting) -> str | None:
    """Only the predictable gate has a memory."""
    return runs("route")(setting) if setting.rule.gate == "predictable" else f"{setting.rule.gate} has no memory"


def splits_each_move(setting: StepSetting) -> str | None:
    """What a step adds must be split by itself, so that what earlier steps did plays no part."""
    if setting.space == "displacement":
        return "the step after a refresh splits anew what all steps before it learned"
    return removes_the_component(setting)


def splits_what_was_learned(setting: StepSetting) -> str | None:
    """Only a split of the whole displacement turns to a new basis what was learned under the old one."""
    if setting.space != "displacement":
        return f"in {setting.space} space, what was learned before a refresh stays where it is"
    return None


def routes_what_was_learned(setting: StepSetting) -> str | None:
    """As before, and there must be a quarantine that holds a part of it."""
    return splits_what_was_learned(setting) or runs("none", "route")(setting)


def splits_all_of_what_was_learned(setting: StepSetting) -> str | None:
    """As before, and nothing hack-ward may be left by one split."""
    return splits_what_was_learned(setting) or removes_the_component(setting)


def treats_empty_modules_alike(setting: StepSetting) -> str | None:
    """A module with k = 0 must be clipped under route as under vanilla."""
    return is_clipped_as_vanilla(setting) or runs("none", "route")(setting)


def has_a_reference(setting: StepSetting) -> str | None:
    """The specification must have this optimizer, with a bound on what rounding does to it."""
    if setting.reference is None:
        return "the setting names no reference optimizer"
    known = isinstance(setting.reference, SGD | AdamW)
    return None if known else f"no sensitivity is derived for {type(setting.reference).__name__}"
