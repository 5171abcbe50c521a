"""The settings of a routed step, and which combinations mean something."""

from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal, get_args

from projected_grpo.clip import ClipPolicy
from projected_grpo.errors import SettingError, UnsupportedCombinationError
from projected_grpo.split import DEFAULT_RULE, SplitRule, finite_and_positive

Intervention = Literal["none", "erase", "route"]
Space = Literal["gradient", "update", "displacement"]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Everything that decides a step besides the optimizer, the gradients and the basis.

    Arguments:
        intervention: none (vanilla), erase (the removed part is dropped) or route (it goes to the quarantine).
        space: what is split: the gradient, the optimizer's update, or the displacement since the start.
        clip: what is clipped relative to the split; only gradient space has a choice.
        max_norm: the limit of the global norm; None clips nothing.
        rule: gate, overshoot and preserve_magnitude of the split.
        retained: under erase outside gradient space the optimizer's point keeps what the deployed vectors are not
            given. This share of it stays there after each step: at 1 all, so that it may grow without bound where
            nothing sees it (windup); at 0 nothing, so that the optimizer goes on from the deployed vectors.

    Raises:
        SettingError: an unknown name, a max_norm that is not finite and positive, a rule that is none, or a retained
            share that is not from 0 to 1.
        UnsupportedCombinationError: a clip other than before outside gradient space, or something else than erase there
            that is to retain a share.
    """

    intervention: Intervention = "route"
    space: Space = "displacement"
    clip: ClipPolicy = "before"
    max_norm: float | None = None
    rule: SplitRule = DEFAULT_RULE
    retained: float = 1.0

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("intervention", self.intervention, get_args(Intervention)),
            ("space", self.space, get_args(Space)),
            ("clip", self.clip, get_args(ClipPolicy)),
        ):
            if value not in allowed:
                raise SettingError(f"{what} is {value!r}; it must be one of {', '.join(allowed)}.")
        if self.max_norm is not None:
            if not finite_and_positive(self.max_norm):
                raise SettingError(f"max_norm is {self.max_norm!r}; it must be a finite number above 0, or None.")
            object.__setattr__(self, "max_norm", float(self.max_norm))  # a checkpoint reads back plain numbers only
        if not isinstance(self.rule, SplitRule):
            raise SettingError(f"rule is {self.rule!r}; it must be a SplitRule, for instance SplitRule(overshoot=1.1).")
        if self.space != "gradient" and self.clip != "before":
            raise UnsupportedCombinationError(
                f"clip={self.clip!r} has no meaning in {self.space} space, where one unsplit gradient is clipped; "
                "use clip='before', or space='gradient'."
            )
        if not (isinstance(self.retained, Real) and 0 <= float(self.retained) <= 1):
            raise SettingError(f"retained is {self.retained!r}; it is a share, from 0 to 1.")
        object.__setattr__(self, "retained", float(self.retained))
        if self.retained < 1 and not (self.moves_the_point and self.intervention == "erase"):
            raise UnsupportedCombinationError(
                f"retained={self.retained:g} has no meaning under {self.intervention} in {self.space} space, where no "
                "point of the optimizer keeps what the model is not given; leave it at 1, or use erase in update or "
                "displacement space."
            )

    @property
    def moves_the_point(self) -> bool:
        """Whether one optimizer moves the combined point, and its result is split; none splits nothing anywhere."""
        return self.space != "gradient" and self.intervention != "none"

    def settings(self) -> dict[str, Any]:
        """Plain values, for checkpoints."""
        return asdict(self)

    def __str__(self) -> str:
        limit = "no clip" if self.max_norm is None else f"clip {self.clip} at {self.max_norm:g}"
        preserved = ", magnitude preserved" if self.rule.preserve_magnitude else ""
        rule = f"{self.rule.gate} with overshoot {self.rule.overshoot:g}{preserved}"
        retained = f", {self.retained:g} of what is dropped retained" if self.retained < 1 else ""
        return f"{self.intervention} in {self.space} space, {limit}, {rule}{retained}"
