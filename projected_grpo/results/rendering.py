"""Results as text: for a terminal, and as Markdown, CSV and JSON.

What is shown is decided once, as tables of words (`sections`); terminal and Markdown only draw them. CSV and JSON carry
every digit and column instead.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from projected_grpo.errors import UsageError
from projected_grpo.results.bootstrap import RESAMPLES
from projected_grpo.results.figures import FIGURES
from projected_grpo.results.tables import Results

Format = Literal["terminal", "markdown", "csv", "json"]
WIDTH = 160  # of tables in a file
SUFFIXES: dict[str, Format] = {".txt": "terminal", ".md": "markdown", ".csv": "csv", ".json": "json"}
HEADS = {
    "hack": "hack", "solve": "solve", "hack_deployed": "hack, deployed", "solve_deployed": "solve, deployed",
}  # fmt: skip
NOTE = (
    "Rates are means over the last 5 steps; n: values used. As trained: the student's rollouts. Deployed: of routing "
    "the ablated model, of other arms the model as trained; in JSONL logs, for all arms, on held-out prompts."
)
_PROSE = ("what", "reason")
_SPREAD = (
    f"Means are over seeds, runs of one seed averaged first; std is over seeds; 95 % is a bootstrap interval of the "
    f"mean ({RESAMPLES:,} resamples), where there are 3 seeds or more."
)


_CSV = {
    **dict.fromkeys(("table", "configuration", "arm", "seeds", "figure"), pl.String),
    **dict.fromkeys(("value", "std", "low", "high"), pl.Float64), **dict.fromkeys(("n", "n_vanilla"), pl.Int64),
    **dict.fromkeys(("source", "reason", "logs"), pl.String),
}  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A table of words, and what stands under it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sources: tuple[str, ...]
    note: str = ""


def sections(results: Results) -> list[Section]:
    """Everything that is shown, by configuration; tables that would be empty are left out."""
    made = []
    for name in _in_order(results.runs["configuration"]):
        own = {key: _of(getattr(results, key), name) for key in ("runs", "arms", "paired", "deltas")}
        made.append(_runs(name, own["runs"]))
        made += _over_seeds(f"Arms over seeds: {name}", own["arms"], own["runs"]["source"].to_list())
        made.append(_paired(name, own["paired"]))
        used = sorted({*own["paired"]["source"], *own["paired"]["vanilla"].explode().drop_nulls()})
        made += _over_seeds(f"Less vanilla, over paired seeds: {name}", own["deltas"], used)
    made.append(_listed("Without partner, so in no difference", results.unpaired))
    made.append(_listed("Incomplete, so in no table", results.incomplete))
    made.append(_unread(results.unread))
    return [section for section in made if section.rows]


def format_of(path: Path) -> Format:
    """The format that a file's name asks for.

    Raises:
        UsageError: its suffix says none, or there can be no such file.
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--report {path} says no format; end its name in one of {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir() or path.is_dir():
        why = "it is a directory" if path.is_dir() else f"there is no directory {path.parent}; make it first"
        raise UsageError(f"--report {path} cannot be written: {why}.")
    return SUFFIXES[path.suffix]


def terminal(results: Results, width: int = WIDTH) -> RenderableType:
    """Tables that rich draws; one that is too wide is drawn without lines, which leaves more room."""
    parts: list[RenderableType] = []
    console = Console(width=10_000)
    for section in sections(results):
        table = Table(title=Text(section.title), title_justify="left", title_style="bold", header_style="bold")
        for at, column in enumerate(section.columns):
            justify: Literal["left", "right"] = "left" if at == 0 or column in _PROSE else "right"
            table.add_column(Text(column), justify=justify, overflow="fold")
        for row in section.rows:
            table.add_row(*map(Text, row))
        if console.measure(table).maximum > width:
            table.box, table.padding, table.pad_edge = None, (0, 1, 0, 0), False
        parts += [table, *(Text(line, style="dim") for line in _under(section)), Text("")]
    return Group(*parts, *(Text(note, style="dim") for note in _notes(results)))


def rendered(results: Results, format_: Format) -> str:
    """The results as plain text of a format; for "terminal" what a terminal of 160 columns shows."""
    assert format_ in get_args(Format)
    return {"terminal": _plain, "markdown": _markdown, "csv": _csv, "json": _json}[format_](results)


def _runs(name: str, runs: pl.DataFrame) -> Section:
    rows = [
        (row["arm"], str(row["seed"]), row["format"], *(_rate(row[figure]) for figure in FIGURES),
         " ".join(str(row[f"n_{figure}"]) for figure in FIGURES))
        for row in runs.rows(named=True)
    ]  # fmt: skip
    columns = ("arm", "seed", "log", *HEADS.values(), "n of each")
    return Section(f"Runs, last 5 steps: {name}", columns, tuple(rows), tuple(runs["source"].to_list()))


def _paired(name: str, paired: pl.DataFrame) -> Section:
    rows = [
        (row["arm"], str(row["seed"]), *(_rate(row[f"d_{figure}"], sign="+") for figure in FIGURES),
         str(row["n_vanilla"]))
        for row in paired.rows(named=True)
    ]  # fmt: skip
    used = sorted({*paired["source"], *paired["vanilla"].explode().drop_nulls()})
    columns = ("arm", "seed", *HEADS.values(), "vanilla runs")
    return Section(f"Less vanilla of the same seed: {name}", columns, tuple(rows), tuple(used))


def _over_seeds(title: str, frame: pl.DataFrame, sources: Sequence[str]) -> list[Section]:
    """A mean over seeds and a figure of one seed look alike and are not, so they never share a table."""
    made = []
    mixed = frame["logs"].n_unique() > 2  # text, JSONL, and none as trained
    several = pl.col("n") > 1
    for words, kept in (("", several), (" (of one seed)", pl.col("n") == 1)):
        rows = [
            (row["arm"], _head(row, mixed=mixed), _rate(row["mean"], sign=_sign(row["figure"])),
             _rate(row["std"]), _between(row["low"], row["high"], _sign(row["figure"])), str(row["n"]),
             " ".join(map(str, row["seeds"])))
            for row in frame.filter(kept).rows(named=True)
        ]  # fmt: skip
        columns = ("arm", "rate", "mean" if not words else "value", "std", "95 %", "n", "seeds")
        made.append(Section(title + words, columns, tuple(rows), tuple(sources), "" if words else _SPREAD))
    return made


def _listed(title: str, frame: pl.DataFrame) -> Section:
    rows = [(row["source"], row["arm"], str(row["seed"]), row["reason"]) for row in frame.rows(named=True)]
    return Section(title, ("log", "arm", "seed", "reason"), tuple(rows), ())


def _unread(frame: pl.DataFrame) -> Section:
    rows = [(row["source"], row["kind"], row["reason"]) for row in frame.rows(named=True)]
    return Section("Not read, so in no table", ("file", "what", "reason"), tuple(rows), ())


def _head(row: dict[str, Any], *, mixed: bool) -> str:
    return HEADS[row["figure"].removeprefix("d_")] + (f" ({row['logs']} logs)" if mixed and row["logs"] else "")


def _notes(results: Results) -> list[str]:
    return [*([NOTE] if results.runs.height else []), *results.notes]


def _under(section: Section) -> list[str]:
    notes = [section.note] if section.note else []
    if not section.sources:
        return notes
    alike = len({Path(source).is_absolute() for source in section.sources}) == 1
    folder = os.path.commonpath([str(Path(source).parent) for source in section.sources]) if alike else ""
    names = [str(Path(source).relative_to(folder)) if folder else source for source in section.sources]
    place = f" (in {folder})" if folder and len(names) > 1 else ""
    return [*notes, f"Made of{place}: {', '.join(names if place else section.sources)}"]


def _plain(results: Results) -> str:
    console = Console(width=WIDTH, highlight=False, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(terminal(results))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _markdown(results: Results) -> str:
    blocks = []
    for section in sections(results):
        lines = [f"**{_escaped(section.title)}**", "", "| " + " | ".join(section.columns) + " |"]
        lines.append("|---|" + "---:|" * (len(section.columns) - 1))
        lines += ["| " + " | ".join(map(_escaped, row)) + " |" for row in section.rows]
        blocks.append("\n".join([*lines, "", *(f"{_escaped(line)}  " for line in _under(section))]).rstrip())
    return "\n\n".join([*blocks, *map(_escaped, _notes(results))])


def _csv(results: Results) -> str:
    """All tables as one, long: a row for each figure, and a column that says which table it is of."""
    rows: list[dict[str, Any]] = []
    for table, frame, prefix in (("run", results.runs, ""), ("paired", results.paired, "d_")):
        for row in frame.rows(named=True):
            rows += [
                {"table": table, "configuration": row["configuration"], "arm": row["arm"], "seeds": str(row["seed"]),
                 "figure": prefix + name, "logs": row["logs"], "value": row[prefix + name], "n": row.get(f"n_{name}"),
                 "n_vanilla": row.get("n_vanilla"), "source": ";".join([row["source"], *row.get("vanilla", ())])}
                for name in FIGURES
            ]  # fmt: skip
    for table, frame, made_of in (("arm", results.arms, results.runs), ("delta", results.deltas, results.paired)):
        rows += [
            {**row, "table": table, "seeds": " ".join(map(str, row["seeds"])), "value": row["mean"],
             "source": ";".join(_sources(row, made_of))}
            for row in frame.rows(named=True)
        ]  # fmt: skip
    for table, frame in (("unpaired", results.unpaired), ("incomplete", results.incomplete)):
        rows += [{**row, "table": table, "seeds": str(row["seed"])} for row in frame.rows(named=True)]
    rows += [{**row, "table": row["kind"]} for row in results.unread.rows(named=True)]
    rows += [{"table": "note", "reason": note} for note in results.notes]
    shown = [{name: row.get(name) for name in _CSV} for row in rows]
    return pl.DataFrame(shown, schema=_CSV).write_csv().rstrip("\n")


def _sources(row: dict[str, Any], made_of: pl.DataFrame) -> list[str]:
    """The files that a mean over seeds is made of."""
    keys = [name for name in ("configuration", "arm", "logs") if row[name] is not None]
    own = made_of.filter(pl.col(name) == row[name] for name in keys)
    return sorted({*own["source"], *(each for one in own.rows(named=True) for each in one.get("vanilla", ()))})


def _json(results: Results) -> str:
    tables = {
        name: [{key: _finite(value) for key, value in row.items()} for row in getattr(results, name).rows(named=True)]
        for name in ("runs", "arms", "paired", "deltas", "unpaired", "incomplete", "unread")
    }
    return json.dumps({"version": 1, **tables, "notes": results.notes}, indent=1, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _of(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    return frame.filter(pl.col("configuration") == name)


def _in_order(column: pl.Series) -> list[str]:
    return list(dict.fromkeys(column.to_list()))


def _rate(value: float | None, *, sign: Literal["+", ""] = "") -> str:
    return "" if value is None else f"{value + 0.0:{sign}.3f}"


def _between(low: float | None, high: float | None, sign: Literal["+", ""]) -> str:
    return "" if low is None or high is None else f"{_rate(low, sign=sign)} to {_rate(high, sign=sign)}"


def _sign(figure: str) -> Literal["+", ""]:
    return "+" if figure.startswith("d_") else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("\n", " ")
