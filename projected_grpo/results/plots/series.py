"""From runs to what is drawn: series of seeds, their mean and spread, and which model each is of."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from projected_grpo.results.plots.arms import Group, grouped, printable, source_names
from projected_grpo.results.plots.data import Arm, Curve, Limit, Line, Mean, Panel, PlotData
from projected_grpo.results.plots.errors import NothingToPlotError
from projected_grpo.results.plots.quantities import (
    HELD_OUT,
    MODES,
    NORMS,
    RATES,
    ROLLOUTS,
    ROWS,
    Quantity,
    Row,
    by_mode,
    rates,
)
from projected_grpo.results.run import LoggedRun

SPREAD = ("Bold: mean over seeds; thin: each run; band: one standard deviation across seeds to both sides, none where "
          "fewer than two seeds have the step.")  # fmt: skip

MOST_POINTS = 1000  # of a line: more than a panel has room for, and than a reader sees


def series(runs: Sequence[LoggedRun], clip: Mapping[Path, float] | None = None) -> PlotData:
    """What a plot of these runs shows.

    clip: the limit of the gradient's norm in each run that has one, by its source.

    Raises NothingToPlotError, also for a run that is not complete: its numbers must not enter a mean.
    """
    for run in runs:
        if not run.complete:
            raise NothingToPlotError(f"{run.source} is not complete ({run.problem}); leave it out.")
    if not runs:
        raise NothingToPlotError("There is no complete run to draw; name files or folders that have one.")
    names = source_names(runs)
    notes: list[str] = []
    window = max(1, -(-max(_last_step(run) for run in runs) // MOST_POINTS))
    if window > 1:
        notes.append(f"Of what is logged at each step, a point is the mean of {window} consecutive steps.")
    arms = tuple(_arm(group, names, clip or {}, window, notes) for group in grouped(runs))
    filled = {panel.row for arm in arms for panel in arm.panels if panel.curves}
    if not filled:
        raise NothingToPlotError(f"No run has a number that a plot shows; {len(runs)} were read.")
    without = [f"{row.title.split(',')[0].lower()} ({_columns(row)})" for row in ROWS if row.key not in filled]
    missing = [f"Left out, because no run has it: {'; '.join(without)}."] if without else []
    several = [SPREAD] if any(len(arm.seeds) > 1 for arm in arms) else []
    rows = tuple(row.key for row in ROWS if row.key in filled)
    return PlotData(arms=arms, rows=rows, notes=tuple(several + missing + notes))


def _columns(row: Row) -> str:
    if row.key == RATES:
        return "hack and solve"
    return "hack_by_mode_deployed" if row.key == MODES else ", ".join(each.metric for each in row.quantities)


def _arm(group: Group, names: Mapping[Path, str], clip: Mapping[Path, float], window: int, notes: list[str]) -> Arm:
    first, label = group.runs[0], group.label
    routes = first.intervention == "route"
    panels = []
    for row in ROWS:
        if row.key == RATES:
            curves = _rate_curves(group, names, window, notes)
        else:
            wanted = [(by_mode(first.intervention), True)] if row.key == MODES else [(q, True) for q in row.quantities]
            curves = _curves(group, wanted, names, window, notes)
        drawn = {curve.metric for curve in curves}
        limits = [limit for limit in row.limits if limit.of in drawn]
        if row.key == NORMS and curves:
            limits = _thresholds(group, clip, notes)
        panels.append(Panel(row=row.key, curves=tuple(curves), limits=tuple(limits)))
    seeds = tuple(sorted({run.seed for run in group.runs}))
    fewest = {curve.metric: curve.seeds for panel in panels for curve in panel.curves if curve.seeds < len(seeds)}
    notes += [f"{label}: {metric} is known of {fewer} of {len(seeds)} seeds." for metric, fewer in fewest.items()]
    for seed in seeds:
        times = sum(run.seed == seed for run in group.runs)
        if times > 1:
            notes.append(f"{label}: seed {seed} was run {times} times; it counts once, with the mean of its runs.")
    rated = [curve for panel in panels if panel.row == RATES for curve in panel.curves]
    pale = any(not curve.primary for curve in rated)
    if routes:
        bold = "bold: as deployed" if any(curve.primary for curve in rated) else "never evaluated as deployed"
        models = f"{bold}; pale: as trained" if pale else bold
    else:
        models = "as trained, which is what is deployed"
    return Arm(
        label=label,
        models=models,
        seeds=seeds,
        steps=max((_last_step(run) for run in group.runs), default=0),
        panels=tuple(panels),
        sources=tuple(f"{names[run.source]} (seed {run.seed}, {run.steps.height} steps)" for run in group.runs),
    )


def _rate_curves(group: Group, names: Mapping[Path, str], window: int, notes: list[str]) -> list[Curve]:
    intervention = group.runs[0].intervention
    wanted = []
    for key in ("hack", "solve"):
        held_out = all(_has(run, f"{key}_trained") for run in group.runs)
        bold, pale = rates(key, intervention, held_out=held_out)
        wanted += [(bold, True), *([] if pale is None else [(pale, False)])]
    curves = _curves(group, wanted, names, window, notes)
    if intervention == "route" and not any(curve.primary for curve in curves):
        notes.append(f"{group.label}: no run was evaluated as deployed; what is drawn is the model as trained.")
    if intervention != "route" and any(curve.primary and curve.on == ROLLOUTS for curve in curves):
        notes.append(f"{group.label}: bold is of training rollouts; not every run was evaluated on held-out prompts.")
    return curves


def _thresholds(group: Group, clip: Mapping[Path, float], notes: list[str]) -> list[Limit]:
    values = sorted({clip[run.source] for run in group.runs if run.source in clip})
    if not values:
        notes.append(f"{group.label}: no clip threshold is drawn; the logs name none.")
    return [Limit(of="grad_norm_pre_clip", label=f"clip threshold {value:g}", value=value) for value in values]


def _curves(
    group: Group, wanted: Iterable[tuple[Quantity, bool]], names: Mapping[Path, str], window: int, notes: list[str]
) -> list[Curve]:
    curves = []
    for quantity, primary in wanted:
        tables: dict[str, list[tuple[LoggedRun, pl.DataFrame]]] = {}
        for run in group.runs:
            for key, table in _tables(run, quantity).items():
                finite = table.with_columns(pl.when(pl.col("value").is_finite()).then(pl.col("value")).alias("value"))
                lost = finite["value"].null_count() - table["value"].null_count()
                if lost:
                    notes.append(f"{names[run.source]}: {key} is not finite at {lost} steps, which are gaps.")
                if window > 1 and quantity.on != HELD_OUT:
                    finite = _thinned(finite, window)
                if finite["value"].null_count() < finite.height:
                    tables.setdefault(key, []).append((run, finite))
        for key in sorted(tables) if quantity.by_mode else tables:
            curves.append(_curve(key, quantity, primary, tables[key], names))
    return curves


def _thinned(table: pl.DataFrame, window: int) -> pl.DataFrame:
    """The mean of each so many consecutive steps, over those that have a value, at the last of them."""
    at = ((pl.col("step") + window - 1) // window * window).alias("step")
    return table.group_by(at, maintain_order=True).agg(pl.col("value").mean()).sort("step")


def _curve(
    key: str, quantity: Quantity, primary: bool, tables: list[tuple[LoggedRun, pl.DataFrame]], names: Mapping[Path, str]
) -> Curve:
    lines = []
    for run, table in tables:
        shown = table if quantity.on != HELD_OUT else table.drop_nulls()
        lines.append(Line(seed=run.seed, source=names[run.source], steps=tuple(shown["step"].to_list()),
                          values=tuple(shown["value"].to_list())))  # fmt: skip
    seeds = len({run.seed for run, _ in tables})
    return Curve(key=key, metric=quantity.metric, model=quantity.model, on=quantity.on, primary=primary, seeds=seeds,
                 lines=tuple(lines), mean=_mean(tables, seeds))  # fmt: skip


def _mean(tables: list[tuple[LoggedRun, pl.DataFrame]], seeds: int) -> Mean:
    value = pl.col("value")
    every = pl.concat([table.with_columns(pl.lit(run.seed, pl.Int64).alias("seed")) for run, table in tables])
    by_seed = every.group_by("seed", "step").agg(value.mean())
    # By seed first, or the sums would follow the order of a hash table.
    found = (
        by_seed.sort("seed").group_by("step", maintain_order=True)
        .agg(value.mean().alias("mean"), value.std().alias("std"), value.count().alias("n"))
        .sort("step")
    )  # fmt: skip
    alone = pl.col("n") < min(2, seeds)
    found = found.with_columns(pl.when(~alone).then(pl.col("mean")).alias("mean"))
    return Mean(steps=tuple(found["step"].to_list()), values=tuple(found["mean"].to_list()),
                std=tuple(found["std"].to_list()), n=tuple(found["n"].to_list()))  # fmt: skip


def _tables(run: LoggedRun, quantity: Quantity) -> dict[str, pl.DataFrame]:
    """Columns "step" and "value" of a metric; of one by mode, a table for each mode."""
    frame = _frame(run, quantity.metric)
    if frame is None:
        return {}
    steps = frame["step"].cast(pl.Int64) + _uncounted(run)
    if not quantity.by_mode:
        return {quantity.key: pl.DataFrame({"step": steps, "value": frame[quantity.metric].cast(pl.Float64)})}
    rows = [each if isinstance(each, dict) else {} for each in frame[quantity.metric].to_list()]
    return {
        f"{quantity.key} {printable(mode)}": pl.DataFrame(
            {"step": steps, "value": pl.Series([row.get(mode) for row in rows], dtype=pl.Float64, strict=False)}
        )
        for mode in sorted({mode for row in rows for mode in row})
    }


def _frame(run: LoggedRun, metric: str) -> pl.DataFrame | None:
    """Where a run has a metric: rates of a model are of its evaluations, or in the rows of the steps in old formats."""
    for frame in (run.evaluations, run.steps):
        if metric in frame.columns and frame[metric].null_count() < frame.height:
            return frame
    return None


def _has(run: LoggedRun, metric: str) -> bool:
    return _frame(run, metric) is not None


def _last_step(run: LoggedRun) -> int:
    last = run.steps["step"].max() if run.steps.height else None
    return int(last) + _uncounted(run) if isinstance(last, int | float) and math.isfinite(last) else 0


def _uncounted(run: LoggedRun) -> int:
    """What a step's number lacks to be how many were done: text logs call the first step 0, JSONL logs 1."""
    return int(run.steps.height > 0 and run.steps["step"].min() == 0)
