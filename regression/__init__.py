"""Pinned formats: files that a released version wrote, and that every later version must read.

    schema/v1.json                       the declaration of logs: append_only.py holds every version against today's
    releases/v1/                         a log of that version, and what it must be read to
    golden/                              what today's writer writes of a scripted run; `pytest --snapshot-update`
    data/gradient-tape-v1.safetensors    3 steps of two modules, r = 12 and 8, k = 3 and 0
    data/hack-basis-v1.safetensors       the basis of that tape
    data/report-v1.json                  `projected-grpo verify --json` of a split function on that tape
    data/report-v1-expectations.json     the same of two settings, one of them expected to fail; with keys added since

A pinned file is never written again; a new format gets a new file beside it. `python -m regression --freeze` adds a
version of the log.
"""

from pathlib import Path

DATA = Path(__file__).parent / "data"


def pinned(name: str) -> Path:
    """The path of a pinned file; raises FileNotFoundError for a name that isn't there."""
    path = DATA / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a pinned file; there are {sorted(p.name for p in DATA.iterdir())}.")
    return path
