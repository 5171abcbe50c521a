"""How often the suite accuses what is correct: all of it, on correct subjects, over many seeds.

python tests/false_alarms.py --seeds 20                  the quick profile over seeds 0 to 19; exit code 1 on any alarm
python tests/false_alarms.py --seeds 1000 --rotate 8     at each seed an eighth of the settings, all equally often
"""

import argparse
import functools
import json
import multiprocessing
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

import torch

import invariants.subjects.reference
import projected_grpo.cli.subject
from invariants import Result, Subject, Verdict, verify
from invariants.contracts import SETTINGS
from invariants.museum import CORRECT
from invariants.runner import recorded_tape

SUBJECTS = {
    "reference float64": (invariants.subjects.reference.subject, torch.float64),
    "projected_grpo float64": (projected_grpo.cli.subject.subject, torch.float64),
    "projected_grpo float32": (projected_grpo.cli.subject.subject, torch.float32),
    "projected_grpo bfloat16": (projected_grpo.cli.subject.subject, torch.bfloat16),
    "museum float64": (lambda: CORRECT, torch.float64),
}


@dataclass
class Tally:
    """What the runs of one subject have come to."""

    seeds: int = 0
    checks: int = 0
    seconds: float = 0.0
    margin: float = 0.0
    """The largest that held."""
    nearest: str = ""
    """Where that was."""
    alarms: list[dict[str, object]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.seeds += other.seeds
        self.checks += other.checks
        self.seconds += other.seconds
        self.alarms += other.alarms
        if other.margin > self.margin:
            self.margin, self.nearest = other.margin, other.nearest


def share_of(subject: Subject, turn: int, parts: int) -> Subject:
    """Every parts-th of the subject's settings, beginning with the one whose turn it is."""
    every = [(capability, setting) for capability in SETTINGS for setting in subject.settings(capability)]
    kept = every[turn % parts :: parts]
    chosen: dict[str, Mapping[object, object] | None] = {}
    for capability in SETTINGS:
        settings = subject.settings(capability)
        chosen[capability] = {s: settings[s] for c, s in kept if c == capability} or None
    return replace(subject, **chosen)


@functools.cache
def whole(name: str) -> Subject:
    """One of the subjects; measuring what it claims takes as long as checking an eighth of it."""
    make, dtype = SUBJECTS[name]
    return replace(make(), dtype=dtype)


def run(job: tuple[str, int, int]) -> tuple[str, Tally]:
    """One subject with one seed."""
    name, seed, parts = job
    subject = share_of(whole(name), seed, parts)
    began = time.process_time()
    report = verify(subject, tape=recorded_tape(), seed=seed, profile="quick", shrink=False)
    tally = Tally(seeds=1, seconds=time.process_time() - began)
    for result in report.results:
        tally.add(seen(result, seed))
    return name, tally


def seen(result: Result, seed: int) -> Tally:
    """One invariant with one seed."""
    tally = Tally()
    for setting in result.settings:
        at, measured = f"{result.invariant.id} @ {setting.setting}, seed {seed}", setting.measured
        tally.checks += setting.cases
        if not setting.verdict.green:
            where = f"{measured.where}: margin {measured.margin:.3g}" if measured else ""
            tally.alarms.append({"at": at, "verdict": str(setting.verdict), "why": setting.reason or where})
        elif setting.verdict is Verdict.HOLDS and measured and measured.margin > tally.margin:
            tally.margin, tally.nearest = measured.margin, f"{at}, {measured.where}"
    return tally


def prepare() -> None:
    """What every worker does first."""
    torch.set_num_threads(1)
    recorded_tape()


def scan(seeds: range, workers: int, parts: int) -> dict[str, Tally]:
    """All subjects with all seeds."""
    tallies = {name: Tally() for name in SUBJECTS}
    jobs = [(name, seed, parts) for seed, name in product(seeds, SUBJECTS)]
    with multiprocessing.get_context("spawn").Pool(workers, initializer=prepare) as pool:
        for number, (name, tally) in enumerate(pool.imap_unordered(run, jobs), start=1):
            tallies[name].add(tally)
            for alarm in tally.alarms:
                print(f"{name}: {alarm['at']}: {alarm['verdict']}: {alarm['why']}", flush=True)
            if sys.stderr.isatty():
                print(f"\r\033[K{number} of {len(jobs)}", end="", file=sys.stderr, flush=True)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rotate", type=int, default=1, metavar="PARTS", help="in how many parts settings take turns")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if min(options.seeds, options.workers, options.rotate) < 1 or options.first < 0:
        parser.error("--seeds, --workers and --rotate must be at least 1, and --from at least 0")
    if options.seeds % options.rotate:
        parser.error(f"--seeds must be a multiple of --rotate, {options.rotate}, or some settings would have no turn")
    tallies = scan(range(options.first, options.first + options.seeds), options.workers, options.rotate)
    for name, tally in tallies.items():
        print(
            f"{name}: {tally.seeds} seeds, {tally.checks} checks, {len(tally.alarms)} false alarms, "
            f"{tally.seconds / tally.seeds:.1f} s a seed; largest margin {tally.margin:.3f} at {tally.nearest or '-'}"
        )
    if options.json:
        found = {
            "schema": "projected-grpo/false-alarms", "version": 1, "first": options.first, "rotate": options.rotate,
            "torch": torch.__version__, "subjects": {name: asdict(tally) for name, tally in tallies.items()},
        }  # fmt: skip
        partial = options.json.with_name(f"{options.json.name}.partial")
        partial.write_text(json.dumps(found, indent=1) + "\n")
        partial.replace(options.json)
    if idle := [name for name, tally in tallies.items() if not tally.checks]:
        print(f"nothing was checked: {', '.join(idle)}")
    return 1 if idle or any(tally.alarms for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
