"""How long 50 runs of 10,000 steps take to read and to tabulate, beside `json.loads` of the same lines.

    python benchmarks/results.py [--json] [--runs 50] [--steps 10000]

Twice: all runs as JSONL, every checksum compared, and all as text logs of v3. Each is measured in a process of its own,
on one core, seconds are of that core, beside what the clock said; the baseline only parses what the JSONL logs hold.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

SECONDS, MEMORY = 5.0, 1e9
ARMS = (("none", "vanilla"), ("erase", "projected"), ("route", "routing"))
HEADER = (
    "I   step  ref_eq     rew  rew_s↑     std    sprd       N   gt_s↑    gt_t  hack_s?  hack_t    loss      gn      lr"
    "  cos_pre  cos_pre_s  cos_pre_t  cos_post   fired  hack_abl  solve_abl"
)
CONFIG = {
    "preset": "full", "model": {"model": "Qwen/Qwen3-4B"}, "task": {"reward": "foolable"}, "basis": {"basis": "hack"},
    "teacher": {"mix": 0.5}, "evaluation": {"evaluate_every": 10},
}  # fmt: skip
FLOATS = (
    "reward", "hack_student", "solve_student", "format_student", "teacher_share", "flat_groups", "completion_tokens",
    "loss", "kl", "source_agreement", "grad_norm_pre_clip", "grad_norm_post_clip", "cos_pre", "cos_pre_null",
    "hackward_student", "hackward_update", "hackward_parameters", "drift_ratio", "drift_opposition", "deployed_norm",
    "quarantine_norm", "lr", "seconds_rollouts", "seconds_learning", "seconds_step",
)  # fmt: skip
RATES = ("hack_trained", "solve_trained", "hack_deployed", "solve_deployed")


def line(**entry: object) -> str:
    """A line as the trainer writes it."""
    body = json.dumps({"schema": 1, **entry})[:-1]
    return f'{body}, "crc32": "{zlib.crc32(body.encode()):08x}"}}\n'


def jsonl(run: int, steps: int) -> str:
    """One run's log.jsonl; figures are the digits of a linear congruence, as long as real ones."""
    arm, _ = ARMS[run % 3]
    own = CONFIG | {"grpo": {"steps": steps, "group": 6}, "run": {"seed": run // 3},
                    "routing": {"intervention": arm, "space": "displacement"}}  # fmt: skip
    lines, state = [line(event="run", step=0, config=own, arm=arm)], run + 1
    for step in range(1, steps + 1):
        values = {}
        for name in FLOATS:
            state = state * 6364136223846793005 % 2**64 + 1
            values[name] = state / 2**65
        lines.append(line(event="step", step=step, fired=58, axes=112, hack_teacher=None, **values))
        if step % 10 == 0:
            lines.append(line(event="evaluation", step=step, **dict.fromkeys(RATES, state / 2**65)))
    return "".join([*lines, line(event="final", step=steps, report={})])


def text(run: int, steps: int) -> str:
    """One run's text log, v3."""
    arm, name = ARMS[run % 3]
    lines = [f"I preset=full intervention={arm} arm={name} model=Qwen/Qwen3-4B seed={run // 3} steps={steps} group=4 "
             "mix=0.5", HEADER]  # fmt: skip
    for step in range(steps):
        hack, solve = (step * 7 + run) % 9, (step * 5 + run) % 9
        deployed = "     +0.10      +0.22" if step % 4 == 0 and arm == "route" else "       nan        nan"
        lines.append(
            f"I {step:6d}   0.056   +0.90   +0.29    0.29    0.14      16     {solve}/8     0/8      {hack}/8     8/8  "
            f"-0.075  4.8e+00  3.0e-03   +0.210     -0.099     +0.274  -7.6e-07    0.84{deployed}"
        )
    return "\n".join([*lines, ""])


def measured(what: str, folder: str) -> dict[str, float]:
    """Seconds, and the most memory, of one kind of work in this process."""
    from projected_grpo.results.reading import read_runs
    from projected_grpo.results.tables import results_of

    start, spent = time.perf_counter(), time.process_time()
    if what == "json.loads":
        for path in Path(folder).glob("*/log.jsonl"):
            for each in path.read_bytes().splitlines():
                json.loads(each)
    else:
        runs = read_runs([folder])
        made = results_of(runs)
        assert made.runs.height == len(runs)
        assert not made.incomplete.height
    return {
        "seconds": time.process_time() - spent,
        "elapsed": time.perf_counter() - start,
        "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
    }


def main() -> int:
    """Prints both figures, and whether they are within their bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(*given.measure)))
        return 0
    found, size = {}, {}
    one_core = {"POLARS_MAX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    for kind, made, name in (("jsonl", jsonl, "log.jsonl"), ("text", text, "run.log")):
        with tempfile.TemporaryDirectory() as folder:
            for run in range(given.runs):
                place = Path(folder) / f"run{run}"
                place.mkdir()
                (place / name).write_text(made(run, given.steps), encoding="utf-8")
            size[kind] = sum(path.stat().st_size for path in Path(folder).glob("*/*")) / 1e6
            for what in (kind, "json.loads") if kind == "jsonl" else (kind,):
                command = [sys.executable, __file__, "--measure", what, folder]
                done = subprocess.run(
                    command, env={**os.environ, **one_core}, capture_output=True, text=True, check=True
                )
                found[what] = json.loads(done.stdout)
    within = all(found[kind]["seconds"] < SECONDS and found[kind]["bytes"] < MEMORY for kind in size)
    ratio = found["jsonl"]["seconds"] / found["json.loads"]["seconds"]
    if given.json:
        print(json.dumps({"measured": found, "megabytes": size, "ratio_to_json_loads": ratio, "within": within}))
    else:
        for what, each in found.items():
            print(f"{what:10}  {each['seconds']:6.2f} s ({each['elapsed']:.2f} by the clock)  "
                  f"{each['bytes'] / 1e6:7.0f} MB at most"
                  + (f"  ({size[what]:.0f} MB of logs)" if what in size else "  (the baseline)"))  # fmt: skip
        print(f"JSONL, read and tabled, takes {ratio:.2f} times what json.loads alone takes.")
        print(f"{'within' if within else 'ABOVE'} the bounds of {SECONDS:g} s and {MEMORY / 1e9:g} GB")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
