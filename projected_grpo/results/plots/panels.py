"""One panel: an arm's curves of one row, and the limits that they are judged by."""

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from projected_grpo.results.plots.data import Curve, Limit, Line, Mean, Panel
from projected_grpo.results.plots.quantities import HELD_OUT, Row
from projected_grpo.results.plots.style import BLACK, GREY, LIMITS, PALE, PALE_GREY, PALE_WIDTH, Look

Bounds = tuple[float, float]
DASHED_STEPS = 500  # in a longer line the dashes of a run's thin line are not seen, and take minutes


def draw_panel(axes: Axes, panel: Panel, looks: dict[str, Look]) -> None:
    """Curves from pale to bold, and limits below them."""
    dress(axes)
    if not panel.curves:
        axes.text(0.5, 0.5, "not in the logs", transform=axes.transAxes, ha="center", va="center", color=GREY)
    bottom, top = axes.get_ylim()
    for limit in panel.limits:
        draw_limit(axes, limit, bottom, top)
    for curve in sorted(panel.curves, key=lambda curve: curve.primary):
        draw_curve(axes, curve, looks[curve.key])
    models = {curve.model for curve in panel.curves}
    for curve in panel.curves:
        if len(models) > 1 and not curve.primary:
            label_pale(axes, curve, looks[curve.key])


def draw_curve(axes: Axes, curve: Curve, look: Look) -> None:
    """Each run thin, the mean bold and its band; a pale curve is its mean alone."""
    mean, marker = curve.mean, look.marker if curve.on == HELD_OUT else ""
    steps, values = list(mean.steps), _numbers(mean.values)
    if not curve.primary:
        axes.plot(steps, values, color=look.colour, linewidth=PALE_WIDTH, alpha=PALE,
                  linestyle=look.dashes, zorder=2)  # fmt: skip
        return
    if len(curve.lines) > 1:
        for line in curve.lines:
            axes.plot(list(line.steps), _numbers(line.values), color=look.colour, linewidth=0.5, alpha=0.55,
                      linestyle=look.dashes if len(line.steps) <= DASHED_STEPS else "-", zorder=2.5)  # fmt: skip
            _dots(axes, line, look, size=1.2, alpha=0.55)
        low, high = band(mean)
        axes.fill_between(
            steps, low, high, color=look.colour, alpha=0.08 if look.colour == BLACK else 0.16, linewidth=0, zorder=2.2
        )
    axes.plot(steps, values, color=look.colour, linestyle=look.dashes, linewidth=look.width, marker=marker,
              markersize=3.2, markeredgecolor="white", markeredgewidth=0.4, zorder=look.above)  # fmt: skip
    if not marker:
        _dots(axes, mean, look, size=look.width, alpha=1.0)


def label_pale(axes: Axes, curve: Curve, look: Look) -> None:
    """Says beside a pale curve which model it is of, where the bold one is of another."""
    there = [(x, y) for x, y in zip(curve.mean.steps, curve.mean.values, strict=True) if y is not None]
    if there:
        x, y = there[(len(there) - 1) * 4 // 5]
        near_top = y > 0.85
        axes.annotate(f"{curve.key} {curve.model}", (x, y), xytext=(0, -7 if near_top else 5), ha="center",
                      textcoords="offset points", va="top" if near_top else "bottom", fontsize=6.5, color=look.colour,
                      alpha=0.9)  # fmt: skip


def band(mean: Mean) -> tuple[list[float], list[float]]:
    """The mean less and plus the deviation; NaN where there is none."""
    pairs = [
        (value, std) if value is not None and std is not None else (float("nan"), 0.0)
        for value, std in zip(mean.values, mean.std, strict=True)
    ]
    return [value - std for value, std in pairs], [value + std for value, std in pairs]


def draw_limit(axes: Axes, limit: Limit, bottom: float, top: float) -> None:
    """A horizontal line, or where it would be far outside of the panel the words that say so."""
    look = LIMITS[limit.of]
    if bottom <= limit.value <= top:
        axes.axhline(limit.value, color=look.colour, linestyle=look.dashes, linewidth=look.width, zorder=2.1)
        return
    above = limit.value > top
    words = f"{limit.label}: {'above' if above else 'below'} this panel"
    axes.text(0.97, 0.94 if above else 0.06, words, transform=axes.transAxes, ha="right",
              va="top" if above else "bottom", color=look.colour, fontsize=6.5, zorder=4,
              bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8})  # fmt: skip


def bounds(row: Row, panels: Sequence[Panel]) -> tuple[Bounds, bool]:
    """The vertical axis that all arms of a row share, and whether it is logarithmic.

    Numbers decide, runs of all arms; a limit has its place where that costs the curves at most half of the height.
    """
    if row.bounds is not None:
        low, high = row.bounds
        return (low - 0.03 * (high - low), high + 0.03 * (high - low)), False
    curves = [curve for panel in panels for curve in panel.curves]
    seen = [v for curve in curves for line in curve.lines for v in line.values if v is not None]
    low, high = min(seen), max(seen)
    if row.key == "norms" and low > 0 and high / low > 20:
        limits = [limit.value for panel in panels for limit in panel.limits if limit.value < 30 * high]
        return (low / 1.4, max([high, *limits]) * 1.6), True
    low = min(low, 0.0)
    limits = [limit.value for panel in panels for limit in panel.limits]
    beyond = any(limit > 2.5 * high for limit in limits)  # words say so, and need room
    high = max([high, *(limit for limit in limits if limit <= 2.5 * high), low + 1e-12])
    return (low - 0.04 * (high - low), high + (0.25 if beyond else 0.08) * (high - low)), False


def dress(axes: Axes) -> None:
    """Grid, spines and ticks."""
    axes.grid(which="major", color=PALE_GREY, linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=GREY, linewidth=0.6)
    axes.tick_params(length=2.5, width=0.6, color=GREY, pad=2)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=2, steps=[1, 2, 5, 10]))
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _dots(axes: Axes, line: Line | Mean, look: Look, *, size: float, alpha: float) -> None:
    """Points with a gap to both sides, which no line would show."""
    there = [False, *(value is not None for value in line.values), False]
    alone = [here and not before and not after for (before, here), (_, after) in pairwise(pairwise(there))]
    at = [(step, value) for step, value, single in zip(line.steps, line.values, alone, strict=True) if single]
    if at:
        axes.plot(*zip(*at, strict=True), color=look.colour, linestyle="", marker="o", markersize=size + 0.6,
                  alpha=alpha, markeredgewidth=0, zorder=3)  # fmt: skip
