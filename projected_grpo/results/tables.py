"""The tables that are made of runs: each run, each arm over its seeds, and differences to vanilla of the same seed.

A mean is over seeds: several runs of one seed are averaged first, so that none counts twice. A difference is only ever
taken between runs of the same seed and configuration, and its mean only over seeds that have both. As deployed, runs of
text logs and of JSONL logs are of different prompts, and never in one mean or difference.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from projected_grpo.results.bootstrap import interval
from projected_grpo.results.figures import (
    DEPLOYED,
    FIGURES,
    LAST,
    TRAINED,
    VANILLA,
    arm,
    configuration,
    figures,
    logs_of,
)
from projected_grpo.results.finding import LeftOut
from projected_grpo.results.run import LoggedRun

_INTERVENTIONS = ("none", "erase", "route")
_RUN = {
    "configuration": pl.String(), "arm": pl.String(), "seed": pl.Int64(), "format": pl.String(), "rows": pl.Int64(),
    **{name: pl.Float64() for name in FIGURES}, **{f"n_{name}": pl.Int64() for name in FIGURES},
    "intervention": pl.String(), "basis": pl.String(), "space": pl.String(), "reward": pl.String(),
    "preset": pl.String(), "model": pl.String(), "steps": pl.Int64(), "group": pl.Int64(), "mix": pl.Float64(),
    "logs": pl.String(), "source": pl.String(),
}  # fmt: skip
_PAIRED = {
    "configuration": pl.String(), "arm": pl.String(), "seed": pl.Int64(), "n_vanilla": pl.Int64(),
    **{f"d_{name}": pl.Float64() for name in FIGURES}, "logs": pl.String(), "source": pl.String(),
    "vanilla": pl.List(pl.String()),
}  # fmt: skip
_OVER_SEEDS = {
    "configuration": pl.String(), "arm": pl.String(), "figure": pl.String(), "logs": pl.String(), "mean": pl.Float64(),
    "std": pl.Float64(), "low": pl.Float64(), "high": pl.Float64(), "n": pl.Int64(), "seeds": pl.List(pl.Int64()),
}  # fmt: skip
_LEFT_OUT = {"source": pl.String(), "arm": pl.String(), "seed": pl.Int64(), "reason": pl.String()}
_UNREAD = {"source": pl.String(), "kind": pl.String(), "reason": pl.String()}
_KEY = ("configuration", "arm")


@dataclass(frozen=True, kw_only=True)
class Results:
    """All tables; every one names the files that it was made of."""

    runs: pl.DataFrame  # a row for each complete run
    arms: pl.DataFrame  # a row for each arm and figure: absolute rates over seeds
    paired: pl.DataFrame  # a row for each run that is not vanilla and has a partner
    deltas: pl.DataFrame  # a row for each arm and figure: differences to vanilla over paired seeds
    unpaired: pl.DataFrame  # runs without partner
    incomplete: pl.DataFrame  # runs that are in no table
    unread: pl.DataFrame  # files that no run was read from: unreadable ones, copies, and no logs
    notes: tuple[str, ...]  # what a reader has to know to compare these runs


def results_of(runs: Sequence[LoggedRun], unread: Sequence[LeftOut] = ()) -> Results:
    """Makes the tables; incomplete runs and files that no run was read from are named and in none of them."""
    complete = [run for run in runs if run.complete]
    whole = _runs(complete)
    paired, unpaired = _pairs(whole)
    left_out = [
        {"source": str(run.source), "arm": arm(run), "seed": run.seed, "reason": run.problem or "it is incomplete"}
        for run in runs
        if not run.complete
    ]
    return Results(
        runs=whole, arms=_over_seeds(whole, ""), paired=paired, deltas=_over_seeds(paired, "d_"), unpaired=unpaired,
        incomplete=pl.DataFrame(left_out, schema=_LEFT_OUT),
        unread=pl.DataFrame(
            [{"source": str(each.source), "kind": each.kind, "reason": each.reason} for each in unread], schema=_UNREAD
        ),
        notes=(*_of_two_kinds(whole), *_differing(complete)),
    )  # fmt: skip


def _runs(runs: Iterable[LoggedRun]) -> pl.DataFrame:
    rows = []
    for run in runs:
        settings, found = run.settings, figures(run)
        rows.append({
            "configuration": configuration(settings), "arm": arm(run), "seed": run.seed, "format": run.format,
            "rows": min(LAST, run.steps.height), "intervention": run.intervention, "basis": run.basis,
            "space": run.space, "reward": run.reward, "preset": settings.preset, "model": settings.model,
            "steps": settings.steps, "group": settings.group, "mix": settings.mix, "logs": logs_of(run),
            "source": str(run.source),
            **{name: figure.value for name, figure in found.items()},
            **{f"n_{name}": figure.n for name, figure in found.items()},
        })  # fmt: skip
    order = pl.col("intervention").replace_strict({name: at for at, name in enumerate(_INTERVENTIONS)}, default=9)
    frame = pl.DataFrame(rows, schema=_RUN)
    return frame.sort("configuration", order, "arm", "seed", "source")


def _pairs(runs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each run less the vanilla runs of its seed and configuration, as deployed those whose logs are of its kind; and
    the runs that have none."""
    at = ["configuration", "seed"]
    vanilla = runs.filter(pl.col("arm") == VANILLA)
    means = {name: pl.col(name).mean().alias(f"v_{name}") for name in FIGURES}  # of those that have it
    partners = vanilla.group_by(at, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n_vanilla"), pl.col("source").alias("vanilla"),
        *(means[name] for name in TRAINED),
    )  # fmt: skip
    of_kind = vanilla.group_by(*at, "logs").agg(*(means[name] for name in DEPLOYED))
    others = runs.filter(pl.col("arm") != VANILLA)
    joined = others.join(partners, on=at, how="left", maintain_order="left")
    joined = joined.join(of_kind, on=[*at, "logs"], how="left", maintain_order="left")
    differences = [(pl.col(name) - pl.col(f"v_{name}")).alias(f"d_{name}") for name in FIGURES]
    paired = joined.filter(pl.col("n_vanilla").is_not_null()).with_columns(differences).select(*_PAIRED)
    reason = pl.format("no complete vanilla run of seed {} in this configuration ({})", "seed", "configuration")
    unpaired = others.join(partners, on=at, how="anti", maintain_order="left").with_columns(reason.alias("reason"))
    return paired, unpaired.select(*_LEFT_OUT)


def _over_seeds(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    rows = []
    for key, group in frame.group_by(_KEY, maintain_order=True):
        for figure, logs, comparable in _comparable(group):
            column = f"{prefix}{figure}"
            by_seed = comparable.drop_nulls(column).group_by("seed").agg(pl.col(column).mean()).sort("seed")
            values = by_seed[column].to_list()
            low, high = interval(values) or (None, None)
            rows.append({
                **dict(zip(_KEY, key, strict=True)), "figure": column, "logs": logs, "n": len(values),
                "mean": statistics.fmean(values) if values else None,
                "std": statistics.stdev(values) if len(values) > 1 else None,
                "low": low, "high": high, "seeds": by_seed["seed"].to_list(),
            })  # fmt: skip
    return pl.DataFrame(rows, schema=_OVER_SEEDS)


def _comparable(runs: pl.DataFrame) -> Iterator[tuple[str, str | None, pl.DataFrame]]:
    """Each figure with the runs that may share a mean of it, and the kind of their logs where that decides."""
    kinds = sorted(set(runs["logs"]), reverse=True)
    for name in TRAINED:
        yield name, None, runs
    for name in DEPLOYED:
        yield from ((name, kind, runs.filter(pl.col("logs") == kind)) for kind in kinds)


def _of_two_kinds(runs: pl.DataFrame) -> list[str]:
    both = runs.group_by("configuration", maintain_order=True).agg(pl.col("logs").n_unique())
    return [
        f"{name}: as deployed, text logs (of vanilla and erase: training rollouts) and JSONL logs (held-out prompts) "
        "say different things, so they are compared and averaged apart; a difference without partner of its kind is "
        "blank."
        for name in both.filter(pl.col("logs") > 1)["configuration"]
    ]


def _differing(runs: Sequence[LoggedRun]) -> Iterator[str]:
    """Settings that runs of one configuration do not share, though no label says so."""
    by_name: dict[str, list[LoggedRun]] = {}
    for run in runs:
        by_name.setdefault(configuration(run.settings), []).append(run)
    for name, alike in sorted(by_name.items()):
        for setting in sorted({each for run in alike for each in run.others}):
            values = sorted({run.others[setting] for run in alike if setting in run.others})
            if len(values) > 1:
                yield f"{name}: runs differ in {setting} ({', '.join(values)}), and are compared all the same."
