"""Logs of runs: every metric declared once, written as JSON lines that carry a version and a checksum.

with LogWriter(folder / "log.jsonl") as log:
    log.write("step", step=1, loss=0.1, ...)
for entry in read(folder / "log.jsonl"): ...
"""

from projected_grpo.logs.errors import DamagedLogError, LogError, UndeclaredMetricError
from projected_grpo.logs.lines import SCHEMA, LogWriter
from projected_grpo.logs.metrics import METRICS, Metric, declared
from projected_grpo.logs.reading import Entry, Recovered, parse, parse_all, read, recover, truncate
from projected_grpo.logs.stream import Stream

__all__ = [
    "METRICS",
    "SCHEMA",
    "DamagedLogError",
    "Entry",
    "LogError",
    "LogWriter",
    "Metric",
    "Recovered",
    "Stream",
    "UndeclaredMetricError",
    "declared",
    "parse",
    "parse_all",
    "read",
    "recover",
    "truncate",
]
