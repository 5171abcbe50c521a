"""The cells of a text log's rows, read as numbers: all rows at once, and each cell checked.

A table of fixed format says more than its numbers: how each column was printed, and that the rollouts of both sources
are N together. A cell that was cut or mended by a stray byte contradicts one of the two more often than not.
"""

from dataclasses import dataclass

import polars as pl

from projected_grpo.results.layouts import DEPLOYED, FRACTIONS, INTEGERS, SECONDS, Layout

_COUNT = "(?:0|[1-9][0-9]{0,8})"
_WHOLE = rf"^{_COUNT}$"
_FRACTION = rf"^(?:{_COUNT}/{_COUNT}|nan)$"
_SUMS = (("gt", "gt_s", "gt_t"), ("hack", "hack_s", "hack_t"))  # all is the student's and the teacher's
_TOGETHER = (("gt",), ("hack",), ("gt_s", "gt_t"), ("hack_s", "hack_t"))  # of N rollouts each

Parts = dict[str, tuple[pl.Series, pl.Series]]


@dataclass(frozen=True)
class Bad:
    """The first row that cannot be read, and why."""

    row: int
    why: str


def table(layout: Layout, rows: list[list[str]]) -> tuple[pl.DataFrame, Bad | None]:
    """The rows before the first bad one, under today's names; of a fraction the denominator too, as `<name>_n`."""
    text = _as_text(layout, rows)
    parts: Parts = {
        name: _parts(text[name])
        for name in layout.columns
        if name in FRACTIONS or (name in DEPLOYED and text[name].str.contains("^[0-9]+/[0-9]+$").any())
    }
    floats = {
        name: text[name].cast(pl.Float64, strict=False).fill_nan(None) for name in layout.written if name not in parts
    }
    bad = _first_bad(layout, text, parts, floats)
    end = text.height if bad is None else bad.row
    columns = []
    for old in layout.columns:
        name = layout.names[old]
        if old in parts:
            above, below = (part.head(end) for part in parts[old])
            share: pl.Series = above.cast(pl.Float64) / below.cast(pl.Float64)
            columns += [share.fill_nan(None).alias(name), below.cast(pl.Int64).alias(f"{name}_n")]
        elif old in INTEGERS:
            columns.append(text[old].head(end).cast(pl.Int64).alias(name))
        else:
            columns.append(floats[old].head(end).alias(name))
    return pl.DataFrame(columns), bad


def _as_text(layout: Layout, rows: list[list[str]]) -> pl.DataFrame:
    schema = dict.fromkeys(layout.columns, pl.String)
    if not rows:
        return pl.DataFrame(schema=schema)
    joined = "\n".join(map(" ".join, rows)).encode()
    return pl.read_csv(joined, has_header=False, separator=" ", schema=schema, quote_char=None)


def _first_bad(layout: Layout, text: pl.DataFrame, parts: Parts, floats: dict[str, pl.Series]) -> Bad | None:
    found: list[Bad] = []
    for name in layout.columns:
        cells = text[name]
        if name in parts:
            above, below = parts[name]
            _note(found, ~cells.str.contains(_FRACTION), name, cells, "no fraction")
            _note(found, above > below, name, cells, "more than a whole")
        elif name in INTEGERS:
            _note(found, ~cells.str.contains(_WHOLE), name, cells, "no whole number")
        else:
            spec, value = layout.written[name], floats[name]
            _note(found, ~cells.str.contains(_form(spec)), name, cells, "no number as this column has them")
            _note(found, _stands_out(spec, value), name, cells, "longer than any other of this column")
            if name in DEPLOYED:
                _note(found, (value < 0) | (value > 1), name, cells, "no share")
    total = text["N"].cast(pl.UInt64, strict=False)
    for names in _TOGETHER:
        if set(names) <= set(layout.columns):
            counted = sum((parts[name][1] for name in names), start=pl.zeros(text.height, pl.UInt64, eager=True))
            _note(found, counted != total, " and ".join(names), text[names[-1]], "not of the rollouts that N counts")
    for whole, student, teacher in _SUMS:
        if {whole, student, teacher} <= set(layout.columns):
            odd = parts[whole][0] != parts[student][0] + parts[teacher][0]
            _note(found, odd, whole, text[whole], f"not {student} and {teacher} together")
    return min(found, key=lambda bad: bad.row, default=None)


def _form(spec: str) -> str:
    """What every cell that was printed with a format specification matches."""
    sign, decimals = "[+-]" if spec[0] == "+" else "", spec[-2]
    if spec[-1] == "e":
        number = rf"[1-9]\.[0-9]{{{decimals}}}e[+-][0-9]{{2}}|0\.0{{{decimals}}}e\+00"
    else:
        number = rf"(?:0|[1-9][0-9]*)\.[0-9]{{{decimals}}}"
    return rf"^(?:{sign}(?:{number}|inf|nan)|nan)$"


def _stands_out(spec: str, value: pl.Series) -> pl.Series:
    """Where a number has more digits before its point than any other of its column.

    It cannot be told from one that a digit was put into. Numbers of a usual length are not asked: of seconds they are
    padded, so that another digit moves what follows. Nor are floats with an exponent: one digit stands there.
    """
    large = value.is_finite() & (value.abs() >= (1e4 if spec == SECONDS else 1e1))
    alone = spec[-1] != "e" and large.sum() == 1
    return large if alone else pl.zeros(len(value), pl.Boolean, eager=True)


def _note(found: list[Bad], wrong: pl.Series, name: str, cells: pl.Series, why: str) -> None:
    row = wrong.fill_null(False).arg_max() if wrong.any() else None
    if row is not None:
        found.append(Bad(row, f"{name} is {cells[row]!r}, {why}"))


def _parts(cells: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Numerators and denominators; null where there is no fraction."""
    both = cells.str.split_exact("/", 1).struct
    above, below = (both.field(name).cast(pl.UInt64, strict=False) for name in ("field_0", "field_1"))
    return above, below
