"""Whether the rows of a text log stand as the programs that wrote them set them: each cell to the right, in its column.

A cell that lost or gained a character is still a number more often than not, but it stands where no program set it: a
cell is as wide as its column, and only a number that is too wide for that is set without any padding.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence

FEW = 3  # rows; of fewer it cannot be told whether they or their header are at fault
_BETWEEN = b"  "  # columns
_CELL = re.compile(rb" *x+")
_FILLED = bytes(byte if byte == ord(" ") else ord("x") for byte in range(256))

Shape = bytes


def first_out_of_line(header: str, rows: Sequence[str]) -> int | None:
    """The first row that is not set in the columns of its header; None if there is none.

    Where most rows do not fit the header, it is the header that was changed, and rows are held to what is usual; where
    nothing is, the log was not set in columns, and nothing is asked of it.
    """
    shapes = [_shape(row) for row in rows]
    count = Counter(shapes)
    fits = _fitting(count, _widths(_shape(header)))
    if len(rows) >= FEW and 2 * sum(count[shape] for shape in fits) < len(rows):
        fits = _fitting(count, _widths(count.most_common(1)[0][0]))
        if 2 * sum(count[shape] for shape in fits) < len(rows):
            return None
    return next((at for at, shape in enumerate(shapes) if shape not in fits), None)


def _fitting(shapes: Collection[Shape], widths: list[int]) -> set[Shape]:
    return {shape for shape in shapes if _fits(shape, widths)}


def _shape(line: str) -> Shape:
    """Where a line is filled and where it is blank; its first column is set off like every other."""
    return _BETWEEN + line.encode("latin-1", errors="replace").translate(_FILLED)


def _widths(shape: Shape) -> list[int]:
    """Of all columns, each with the blanks before it."""
    return [len(cell) for cell in _CELL.findall(shape)]


def _fits(shape: Shape, widths: list[int]) -> bool:
    cells = _CELL.findall(shape)
    return len(cells) == len(widths) and all(
        len(cell) == max(width, len(_BETWEEN + cell.lstrip(b" "))) for cell, width in zip(cells, widths, strict=True)
    )
