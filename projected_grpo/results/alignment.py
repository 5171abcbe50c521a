"""Whether the rows of a text log stand under one another, as the program that wrote them aligned them to the right.

A cell that lost a digit is still a number, but its row is shorter than the others, or its cells end elsewhere.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

ODD = 0.1  # of the rows, and one in any case, may be of another length; if more are, nothing is asked of the log
_CELL = re.compile(r" *[^ ]+")


def first_out_of_line(rows: Sequence[str]) -> int | None:
    """The first row whose cells do not end where those of most rows do; None if there is none.

    A number too wide for its column, such as a loss of -123.456, moves what follows; that is no fault.
    """
    if len(rows) < 2:
        return None
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    [(usual, count)] = Counter(lengths.tolist()).most_common(1)
    if count < 2 or len(rows) - count > max(1.0, ODD * len(rows)):
        return None
    alike = np.flatnonzero(lengths == usual)
    ends = np.packbits(_ends([rows[int(at)] for at in alike], usual), axis=1)
    of_all = (ends == ends[0]).all(axis=1)
    if of_all.mean() < 0.5:  # the first row is the odd one
        each, counts = np.unique(ends, axis=0, return_counts=True)
        of_all = (ends == each[counts.argmax()]).all(axis=1)
    wrong = [int(at) for at in alike[~of_all][:1]]
    pattern = rows[int(alike[of_all.argmax()])]
    wrong += [int(at) for at in np.flatnonzero(lengths != usual) if not _overflows(rows[int(at)], pattern)][:1]
    return min(wrong, default=None)


def _ends(rows: Sequence[str], length: int) -> npt.NDArray[np.bool_]:
    """Where cells end, a row of booleans for each row; all rows are of one length."""
    joined = "".join(rows).encode("latin-1", errors="replace")
    filled = np.frombuffer(joined, np.uint8).reshape(len(rows), length) != ord(" ")
    after = np.zeros_like(filled)
    after[:, :-1] = filled[:, 1:]
    ends: npt.NDArray[np.bool_] = filled & ~after
    return ends


def _overflows(row: str, pattern: str) -> bool:
    """Whether a row is as the pattern, but for cells that are too wide and so stand close behind the one before."""
    cells, usual = _CELL.findall(row), _CELL.findall(pattern)
    if len(cells) != len(usual):
        return False
    return all(
        len(cell) == len(own) or (len(cell) > len(own) and len(cell) - len(cell.lstrip(" ")) <= 2)
        for cell, own in zip(cells, usual, strict=True)
    )
