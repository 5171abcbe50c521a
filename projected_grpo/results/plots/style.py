"""How a curve looks: colours that the colour-blind tell apart, and dashes and markers that a grey print does.

The colours are those of M. Okabe and K. Ito, Color Universal Design (2008).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from projected_grpo.results.plots.data import Curve, PlotData

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, PALE_GREY = "#595959", "#D9D9D9"
PALE, PALE_WIDTH = 0.4, 1.5  # opacity, and points

SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (3.2, 1.3)), (0, (1.1, 1.2)), (0, (4.5, 1.2, 1, 1.2))


@dataclass(frozen=True, kw_only=True)
class Look:
    """Of one key's curves; width in points, for the bold ones."""

    colour: str
    dashes: Any = SOLID
    marker: str = ""
    width: float = 1.9
    above: float = 3.0


LOOKS = {
    "hack": Look(colour=VERMILLION, marker="o"),
    "solve": Look(colour=BLUE, dashes=DASHED, marker="s"),
    "cos_pre": Look(colour=GREEN),
    "cos_pre_null": Look(colour=BLACK, dashes=DOTTED, width=1.3),
    "grad_norm_pre_clip": Look(colour=SKY, width=3.2, above=2.8),
    "grad_norm_post_clip": Look(colour=BLACK, dashes=DASHED, width=1.1),
    "drift_ratio": Look(colour=BLUE),
    "drift_opposition": Look(colour=VERMILLION, dashes=DASHED),
}
OF_MODES = (
    Look(colour=VERMILLION, marker="o"),
    Look(colour=BLUE, dashes=DASHED, marker="s"),
    Look(colour=GREEN, dashes=DOTTED, marker="^"),
    Look(colour=PURPLE, dashes=DASH_DOT, marker="D"),
    Look(colour=ORANGE, dashes=SOLID, marker="v"),
    Look(colour=SKY, dashes=DASHED, marker="P"),
    Look(colour=BLACK, dashes=DOTTED, marker="X"),
)
LIMITS = {
    "grad_norm_pre_clip": Look(colour=VERMILLION, dashes=DASH_DOT, width=1.1),
    "drift_ratio": Look(colour=BLUE, dashes=DOTTED, width=1.2),
    "drift_opposition": Look(colour=VERMILLION, dashes=DASH_DOT, width=1.0),
}
NAMES = {
    "cos_pre": "cos_pre, of the accumulated gradient",
    "cos_pre_null": "cos_pre_null, the same of isotropic noise",
    "grad_norm_pre_clip": "before clipping",
    "grad_norm_post_clip": "after, as fed to the optimizer",
    "drift_ratio": "drift_ratio",
    "drift_opposition": "drift_opposition",
}


def looks(data: PlotData) -> dict[str, Look]:
    """A look for every key; a mode has the same one in every arm."""
    keys = sorted({curve.key for arm in data.arms for panel in arm.panels for curve in panel.curves} - set(LOOKS))
    return {**LOOKS, **{key: OF_MODES[n % len(OF_MODES)] for n, key in enumerate(keys)}}


def name_of(curve: Curve, all_of_row: Sequence[Curve]) -> str:
    """What the legend calls a curve; a bold one has the same name in every arm, whose title says the model."""
    if curve.key in NAMES:
        return NAMES[curve.key]
    if curve.key.startswith("hack under "):
        return curve.key.removeprefix("hack under ")
    if not curve.primary:
        return f"{curve.key} as trained, in {curve.on}"
    deployed = any(each.primary and each.model == "as deployed" for each in all_of_row)
    return f"{curve.key} as {'deployed' if deployed else 'trained'}"
