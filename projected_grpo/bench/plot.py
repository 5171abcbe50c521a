"""A picture of how the cost of the split grows: the loop, the grouped split, and what no code can be below."""

from pathlib import Path

from projected_grpo.bench.report import Report
from projected_grpo.bench.split import GROUPED_STATISTICS, LOOP_STATISTICS
from projected_grpo.errors import SettingError
from projected_grpo.whole_files import whole

FORMATS = ("svg", "png")
LABELS = {"modules": "modules", "r": "length r of a vector", "k": "axes k of a module"}


def format_of(path: Path) -> str:
    """svg or png, by the file's name.

    Raises:
        SettingError: it is neither.
    """
    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise SettingError(f"{path} says no format for a picture; name it .svg or .png.")
    return kind


def plot(report: Report, path: Path) -> None:
    """Draws the rows of the group growth, milliseconds over size, both logarithmic, a panel for each that is varied."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [row for row in report.rows if row.group == "growth" and row.time is not None]
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none"}):
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        axes = figure.subplots(1, len(LABELS), sharey=True)
        for panel, (varied, label) in zip(axes, LABELS.items(), strict=True):
            for job, color in ((LOOP_STATISTICS, "tab:red"), (GROUPED_STATISTICS, "tab:blue")):
                own = [row for row in rows if row.name == job and row.settings["varied"] == varied]
                size = [float(row.settings[varied]) for row in own]
                times = [row.time for row in own if row.time is not None]
                panel.plot(size, [1e3 * time.median for time in times], "o-", color=color, label=job)
                low, high = [1e3 * time.low for time in times], [1e3 * time.high for time in times]
                panel.fill_between(size, low, high, color=color, alpha=0.2)
                if job == GROUPED_STATISTICS:
                    panel.plot(size, [1e3 * (row.bound or 0) for row in own], "k--", label="memory bound")
            panel.set(xscale="log", yscale="log", xlabel=label)
            panel.grid(alpha=0.3)
        axes[0].set_ylabel("milliseconds")
        axes[0].legend(frameon=False)
        figure.suptitle(f"Split with statistics; {report.machine.processor}, {report.machine.threads} thread(s)")
        with whole(path) as partial:
            figure.savefig(partial, format=format_of(path), metadata={"Date": None} if path.suffix == ".svg" else None)
