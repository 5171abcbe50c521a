"""The split of all gradients of a model, beside the loop over its modules."""

from projected_grpo.bench.baselines import split_by_loop, split_by_loop_with_statistics
from projected_grpo.bench.report import Row, rows_of
from projected_grpo.bench.setting import Setting
from projected_grpo.bench.timing import Job, interleaved
from projected_grpo.split import GroupedSplit
from projected_grpo.split_statistics import split_statistics

LOOP, GROUPED = "loop over modules", "grouped"
LOOP_STATISTICS, GROUPED_STATISTICS = "loop over modules, statistics", "grouped, statistics"


def measure_split(setting: Setting) -> list[Row]:
    """For each k: the split alone and with its statistics, each beside the loop that does the same."""
    return [row for k in setting.axes for row in _of(setting, k)]


def _of(setting: Setting, k: int) -> list[Row]:
    basis, g = setting.inputs(k)
    split = GroupedSplit(basis)
    jobs: dict[str, Job] = {
        LOOP: lambda: split_by_loop(g, basis),
        GROUPED: lambda: split(g),
        LOOP_STATISTICS: lambda: split_by_loop_with_statistics(g, basis),
        GROUPED_STATISTICS: lambda: split_statistics(split, split(g)),
    }
    timed = interleaved(jobs, device=setting.device, budget=setting.budget)
    return rows_of(
        timed, group="split", settings={"modules": len(setting.modules), "k": k}, baseline=LOOP,
        baselines={LOOP_STATISTICS: LOOP_STATISTICS, GROUPED_STATISTICS: LOOP_STATISTICS},
        bounds=dict.fromkeys(jobs, split_bound(setting, k)),
    )  # fmt: skip


def split_bound(setting: Setting, k: int) -> float:
    """Seconds: V and g are read once, and both parts written once."""
    rows = sum(min(k, module.r) * module.r for module in setting.modules)
    return setting.seconds_to_move(rows + 3 * setting.entries)
