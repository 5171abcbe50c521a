"""The command: runs the proofs, prints a table, and exits with 1 if one of them fails."""

import argparse
import sys
import time
from pathlib import Path

from invariants.proofs import Outcome, all_proofs, prove_all
from invariants.proofs.runner import TIMEOUT, as_json


def row(found: Outcome) -> str:
    """One line of the table."""
    line = (
        f"{found.theorem:<5}{found.name:<42}{found.how:<31}{found.by:<14}"
        f"{found.steps:>5} steps{found.seconds:>8.1f} s  {found.verdict}"
    )
    return f"{line}\n     {found.reason}" if found.reason else line


def main(args: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m invariants.proofs", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these proofs, or all whose names begin so")
    parser.add_argument("--fast", action="store_true", help="leave out what takes the solver more than a few seconds")
    parser.add_argument("--inline", action="store_true", help="everything in this process, one after the other")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="for one float lemma")
    parser.add_argument("--json", metavar="FILE", help="write the outcomes there; - prints them instead of the table")
    options = parser.parse_args(args)
    chosen = [p for p in all_proofs() if options.only is None or p.name.startswith(tuple(options.only))]
    chosen = [p for p in chosen if not (options.fast and p.slow)]
    if not chosen:
        parser.error(f"no proof is called or begins with {' or '.join(options.only or [])}")
    began, outcomes = time.perf_counter(), []
    for found in prove_all(chosen, inline=options.inline, timeout=options.timeout):
        outcomes.append(found)
        if options.json != "-":
            print(row(found), flush=True)
    if options.json == "-":
        print(as_json(outcomes), end="")
    elif options.json:
        path = Path(options.json)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(as_json(outcomes))
        partial.replace(path)
    failed = [found for found in outcomes if found.verdict != "proved"]
    left_out = len(all_proofs()) - len(chosen)
    note = f", {left_out} not asked for" if left_out else ""
    print(
        f"{len(outcomes) - len(failed)} of {len(outcomes)} proved in {time.perf_counter() - began:.0f} s{note}",
        file=sys.stderr if options.json == "-" else sys.stdout,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
