"""The columns of the text logs, v0 to v3, and what each is called today.

A format is known by its columns, exact and in order. A column whose quantity is one of today's metrics takes that name;
any other keeps its own, with the first format that has it in that meaning: `rew_s` is seconds of grading in v0 and the
student's reward since v1, and `cos_pre` was a signed sum, where today's is a share.

These programs are past: no log is written by them any more, so how each column was printed is known for good.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from projected_grpo.logs.metrics import Event, Kind, declared

FRACTIONS = frozenset(("gt", "gt_s", "gt_t", "hack", "hack_s", "hack_t"))
INTEGERS = frozenset(("step", "N"))
DEPLOYED = {"hack_abl": "hack_deployed", "solve_abl": "solve_deployed"}
DTYPES: dict[Kind, pl.DataType] = {
    "float": pl.Float64(), "int": pl.Int64(), "str": pl.String(), "bool": pl.Boolean(), "object": pl.Null(),
}  # fmt: skip

_COLUMNS = {
    "v0": "step ref_eq rew std sprd N gt hack hack_s hack_t loss cin cin_s cin_t cout fired gen fb rew_s sec",
    "v1": "step ref_eq rew rew_s std sprd N gt gt_s gt_t hack hack_s hack_t loss cin cin_s cin_t cout fired gen fb "
    "t_rew sec",
    "v2": "step ref_eq rew rew_s std sprd N gt_s gt_t hack_s hack_t loss gn lr cos_pre cos_pre_s cos_pre_t "
    "cos_post fired",
    "v3": "step ref_eq rew rew_s std sprd N gt_s gt_t hack_s hack_t loss gn lr cos_pre cos_pre_s cos_pre_t "
    "cos_post fired hack_abl solve_abl",
}
_TODAY = {
    "step": "step", "rew": "reward", "loss": "loss", "lr": "lr", "hack_s": "hack_student", "hack_t": "hack_teacher",
    "gt_s": "solve_student", "gt_t": "solve_teacher", **DEPLOYED,
}  # fmt: skip
# Each format's own columns that have the same meaning in every later format that has them.
_SINCE = {
    "v0": ("ref_eq", "std", "sprd", "N", "gt", "hack", "cin", "cin_s", "cin_t", "cout", "fired", "gen", "fb", "sec"),
    "v1": ("rew_s", "t_rew"),
    "v2": ("gn", "cos_pre", "cos_pre_s", "cos_pre_t", "cos_post"),
}
_SAME = {"t_rew": "rew_s_v0"}  # the same seconds of grading, under the name that says so
SECONDS = ".1f"
# How each column that is a float was printed, as Python's format specifications have it.
_WRITTEN = {
    ".2f": ("std", "sprd", "fired"), "+.2f": ("rew", "rew_s", "hack_abl", "solve_abl"),
    ".3f": ("ref_eq", "cin", "cin_s", "cin_t"), "+.3f": ("loss", "cos_pre", "cos_pre_s", "cos_pre_t"),
    ".1e": ("cout", "gn", "lr"), "+.1e": ("cos_post",), SECONDS: ("gen", "fb", "t_rew", "sec"),
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """One format: its columns in order, what each is called in a frame, and how those that are floats were printed."""

    format: str
    columns: tuple[str, ...]
    names: Mapping[str, str]
    written: Mapping[str, str]


def _layout(format_: str, columns: tuple[str, ...]) -> Layout:
    own = {name: f"{name}_{since}" for since, names in _SINCE.items() for name in names}
    written = {name: spec for spec, names in _WRITTEN.items() for name in names}
    if format_ == "v0":
        own["rew_s"], written["rew_s"] = _SAME["t_rew"], SECONDS
    names = {name: _TODAY.get(name) or _SAME.get(name) or own[name] for name in columns}
    return Layout(format_, columns, names, {name: written[name] for name in columns if name in written})


LAYOUTS = tuple(_layout(format_, tuple(columns.split())) for format_, columns in _COLUMNS.items())
KNOWN = frozenset(name for layout in LAYOUTS for name in layout.columns)


def of_columns(columns: tuple[str, ...]) -> Layout | None:
    """The format that has these columns in this order."""
    return next((layout for layout in LAYOUTS if layout.columns == columns), None)


def expected() -> str:
    """All column sets, for whoever has another."""
    return "; ".join(f"{layout.format}: {' '.join(layout.columns)}" for layout in LAYOUTS)


def with_declared(frame: pl.DataFrame, event: Event) -> pl.DataFrame:
    """The frame with "step" first, then every metric that is declared for the event, then columns of its own."""
    metrics = declared(event)
    columns = [pl.col("step").cast(pl.Int64)]
    columns += [
        pl.col(name) if name in frame.columns else pl.lit(None, DTYPES[metric.kind]).alias(name)
        for name, metric in metrics.items()
    ]
    columns += [pl.col(name) for name in frame.columns if name != "step" and name not in metrics]
    return frame.select(columns)
