"""The kill matrix as a picture: a panel for each hall, faults as rows, what looks at them as columns."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from invariants.museum.matrix import KillMatrix, Row
from invariants.verdict import Verdict

MEANINGS = {
    "has nothing to say": "#ffffff",
    "holds": "#e9ecef",
    "trips too": "#8ecae6",
    "named for the fault": "#c1121f",
}
CELL, ABOVE, LEFT, RIGHT, BELOW = 0.19, 2.6, 4.2, 1.5, 0.4  # inches: a cell's side, and the room around a panel


def draw(matrix: KillMatrix, path: Path) -> None:
    """Writes the picture, with the same bytes for the same matrix and version of matplotlib."""
    halls = matrix.halls
    width = LEFT + CELL * max(len(rows[0].cells) for rows in halls.values()) + RIGHT
    height = BELOW + sum(ABOVE + CELL * len(rows) for rows in halls.values())
    with matplotlib.rc_context({"svg.hashsalt": "kill matrix", "svg.fonttype": "none", "font.size": 7}):
        figure, top = Figure(figsize=(width, height)), height
        for hall, rows in halls.items():
            across, down = CELL * len(rows[0].cells), CELL * len(rows)
            top -= ABOVE + down
            panel(figure.add_axes((LEFT / width, top / height, across / width, down / height)), rows)
            figure.text(0.02, (top + down) / height, hall, fontsize=10, fontweight="bold", va="bottom")
        handles = [Patch(facecolor=colour, edgecolor="#adb5bd", label=what) for what, colour in MEANINGS.items()]
        figure.legend(handles=handles[::-1], loc="lower center", ncols=len(handles), frameon=False)
        partial = path.with_name(f"{path.name}.partial")
        figure.savefig(partial, format=path.suffix.removeprefix("."), metadata={"Date": None})
    partial.replace(path)


def panel(axes: Axes, rows: Sequence[Row]) -> None:
    """One hall."""
    ids = list(rows[0].cells)
    axes.imshow(
        [[shade(row, id) for id in ids] for row in rows],
        cmap=ListedColormap(list(MEANINGS.values())), vmin=0, vmax=len(MEANINGS) - 1, aspect="auto",
    )  # fmt: skip
    axes.set_xticks(range(len(ids)), ids, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), [labelled(row) for row in rows])
    axes.set_xticks([n - 0.5 for n in range(len(ids) + 1)], minor=True)
    axes.set_yticks([n - 0.5 for n in range(len(rows) + 1)], minor=True)
    axes.grid(which="minor", color="#ffffff", linewidth=1)
    axes.tick_params(which="both", length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_color("#adb5bd")


def shade(row: Row, id: str) -> int:
    """Which of the meanings a cell has."""
    if row.cells[id].tripped:
        return 3 if id == row.fault.caught_by else 2
    return int(row.cells[id].verdict is Verdict.HOLDS)


def labelled(row: Row) -> str:
    """A fault with the number of its bug."""
    return row.fault.name if row.fault.bug is None else f"{row.fault.name}  [{row.fault.bug}]"
