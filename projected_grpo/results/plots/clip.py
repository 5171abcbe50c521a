"""The clip threshold of a run, which its own log holds in the configuration; text logs never told it."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from projected_grpo.results.finding import opened
from projected_grpo.results.run import LoggedRun


def clip_thresholds(runs: Iterable[LoggedRun]) -> dict[Path, float]:
    """The largest norm that each run lets a gradient have, by source; without runs that clip nothing or don't say."""
    found = {}
    for run in runs:
        value = _threshold(run.source) if run.format.startswith("jsonl") else None
        if value is not None:
            found[run.source] = value
    return found


def _threshold(source: Path) -> float | None:
    with opened(source) as file:
        try:
            entry = json.loads(file.readline().decode("utf-8-sig"))
        except ValueError:
            return None
    return _positive(entry.get("config")) if isinstance(entry, dict) else None


def _positive(config: object) -> float | None:
    grpo = config.get("grpo") if isinstance(config, dict) else None
    value = grpo.get("max_norm") if isinstance(grpo, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value > 0 else None
