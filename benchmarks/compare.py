"""Two revisions in one job: the suite of the base and that of this checkout, in turn, on the same machine.

    python benchmarks/compare.py BASE [--rounds 2]

Each is run from its own checkout, base, head, head, base, so that a machine that slows down slows both. The figure of a
test is the fastest of its medians. Everything is informational: the exit code is 0 unless a suite cannot be run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUITE = "benchmarks/test_routing.py"
PYTEST = ["-m", "pytest", SUITE, "-q", "-p", "no:xdist", "-p", "benchmark", "-p", "no:cacheprovider"]


def medians(checkout: Path, to: Path) -> dict[str, float]:
    """Seconds of each test, of one run of the suite of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *PYTEST, f"--benchmark-json={to}", "--benchmark-quiet"]
    subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL)
    found = json.loads(to.read_text(encoding="utf-8"))
    return {each["fullname"]: each["stats"]["median"] for each in found["benchmarks"]}


def fastest(runs: list[dict[str, float]]) -> dict[str, float]:
    """The least of each test over several runs."""
    return {name: min(run[name] for run in runs) for name in runs[0]}


def table(base: dict[str, float], head: dict[str, float]) -> str:
    """A line for each test that either has."""
    lines = [f"{'base':>9}  {'head':>9}  head/base"]
    for name in sorted(base | head):
        then, now = base.get(name), head.get(name)
        times = [f"{'none' if each is None else f'{1e3 * each:.3f} ms':>9}" for each in (then, now)]
        ratio = f"{now / then:9.2f}" if then and now else " " * 9
        lines.append(f"{times[0]}  {times[1]}  {ratio}  {name.partition('::')[2]}")
    return "\n".join(lines)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="a revision whose checkout has the suite")
    parser.add_argument("--rounds", type=int, default=2, help="how often each is run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        if subprocess.run(["git", "worktree", "add", "--detach", "--quiet", base, given.base], cwd=ROOT).returncode:
            print(f"{given.base} cannot be checked out; name a revision of this repository.", file=sys.stderr)
            return 2
        try:
            if not (base / SUITE).is_file():
                print(f"{given.base} has no {SUITE}, so there is nothing to compare with.", file=sys.stderr)
                return 2
            found: dict[Path, list[dict[str, float]]] = {base: [], ROOT: []}
            for number in range(given.rounds):
                for checkout in (base, ROOT) if number % 2 == 0 else (ROOT, base):
                    found[checkout].append(medians(checkout, Path(folder) / "found.json"))
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", base], cwd=ROOT, check=True)
    print(table(fastest(found[base]), fastest(found[ROOT])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
