"""Which metrics a plot shows, in which row, and which model each of them is of."""

from dataclasses import dataclass
from typing import Literal

from projected_grpo.diagnostics import DRIFT_OPPOSITION_LIMIT, DRIFT_RATIO_LIMIT
from projected_grpo.results.plots.data import Limit, Model
from projected_grpo.routing import Intervention

Frame = Literal["steps", "evaluations"]

HELD_OUT, ROLLOUTS, STEP = "held-out prompts", "training rollouts", "each step"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A metric to draw.

    key: what it is drawn as; of a metric by mode, what precedes the mode.
    """

    key: str
    metric: str
    model: Model
    on: str
    by_mode: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of panels, one for each arm.

    bounds: of the vertical axis; None where the numbers decide.
    """

    key: str
    title: str
    unit: str
    quantities: tuple[Quantity, ...] = ()
    limits: tuple[Limit, ...] = ()
    bounds: tuple[float, float] | None = None


def _of_step(*names: str) -> tuple[Quantity, ...]:
    return tuple(Quantity(key=name, metric=name, model="as trained", on=STEP) for name in names)


RATES, MODES, NORMS = "rates", "modes", "norms"

ROWS: tuple[Row, ...] = (
    Row(key=RATES, title="Hack and solve", unit="share of completions", bounds=(0.0, 1.0)),
    Row(key=MODES, title="Hack by loophole mode, of the model as deployed", unit="share of completions",
        bounds=(0.0, 1.0)),
    Row(key="cosines", title="Hack-ward share of the gradient, of the model as trained", unit="share, 0 to 1",
        quantities=_of_step("cos_pre", "cos_pre_null")),
    Row(key=NORMS, title="Gradient norm, of the model as trained", unit="norm",
        quantities=_of_step("grad_norm_pre_clip", "grad_norm_post_clip")),
    Row(key="drift", title="Drift gauge, of the deployed vectors", unit="ratio",
        quantities=_of_step("drift_ratio", "drift_opposition"),
        limits=(Limit(of="drift_ratio", label="limit of drift_ratio", value=DRIFT_RATIO_LIMIT),
                Limit(of="drift_opposition", label="limit of drift_opposition", value=DRIFT_OPPOSITION_LIMIT))),
)  # fmt: skip


def rates(key: str, intervention: Intervention, *, held_out: bool) -> tuple[Quantity, Quantity | None]:
    """The series of a rate ("hack" or "solve") that is bold, and the pale one.

    Routing's bold one is of the model as deployed, its quarantine ablated, which only evaluations know. Without routing
    the model as trained is the one that is deployed.

    held_out: whether every run of the arm was evaluated as trained; otherwise rollouts are all that they share.
    """
    rollouts = Quantity(key=key, metric=f"{key}_student", model="as trained", on=ROLLOUTS)
    if intervention == "route":
        return Quantity(key=key, metric=f"{key}_deployed", model="as deployed", on=HELD_OUT), rollouts
    if held_out:
        return Quantity(key=key, metric=f"{key}_trained", model="as trained", on=HELD_OUT), rollouts
    return rollouts, None


def by_mode(intervention: Intervention) -> Quantity:
    """Hack under each mode, of the model that is deployed."""
    model: Model = "as deployed" if intervention == "route" else "as trained"
    metric = "hack_by_mode_deployed" if model == "as deployed" else "hack_by_mode_trained"
    return Quantity(key="hack under", metric=metric, model=model, on=HELD_OUT, by_mode=True)
