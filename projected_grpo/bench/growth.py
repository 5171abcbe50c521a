"""How the cost of the split grows with the number of modules, with the length of their vectors and with the axes."""

from collections.abc import Iterator
from dataclasses import replace

from projected_grpo.bench.report import Row
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.shapes import Module
from projected_grpo.bench.split import measure_split

MODULES, LENGTHS, AXES = (16, 64, 252, 1024), (64, 256, 1024, 4096), (1, 5, 12, 32)
MIDDLE = (252, 1024, 5)  # modules, r, k: what is held fixed while one of them varies


def measure_growth(setting: Setting) -> list[Row]:
    """The split, as `measure_split` has it, on modules of one length, one of the three numbers varying at a time."""
    rows = []
    for varied, modules, r, k in sizes():
        uniform = [Module(f"module.{i}", r, r) for i in range(modules)]
        own = replace(setting, modules=uniform, axes=(k,), budget=setting.budget / 4)
        for row in measure_split(own):
            rows.append(replace(row, group="growth", settings={"varied": varied, "modules": modules, "r": r, "k": k}))
    return rows


def sizes() -> Iterator[tuple[str, int, int, int]]:
    """(what is varied, modules, r, k)."""
    modules, r, k = MIDDLE
    yield from (("modules", each, r, k) for each in MODULES)
    yield from (("r", modules, each, k) for each in LENGTHS)
    yield from (("k", modules, r, each) for each in AXES)
