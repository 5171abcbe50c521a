"""The museum's command.

python -m invariants.museum            run every fault, and say what is not as it should be
python -m invariants.museum --write    pin what every fault trips, and write the guide and the picture
python -m invariants.museum --check    exit code 1 if a row is not as it is pinned, or the guide is not current
"""

import argparse
import json
import sys
from pathlib import Path

import torch

import invariants
from invariants.museum.gates import problems
from invariants.museum.guide import guide
from invariants.museum.matrix import as_json, kill_matrix, pinned
from invariants.museum.self_test import selftest

ROOT = Path(__file__).parents[2]
PINNED, GUIDE, PICTURE = Path(__file__).with_name("kill-matrix.json"), ROOT / "docs/museum.md", "kill-matrix.svg"


def tell(what: str) -> None:
    """Shows on a terminal what is running."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def put(path: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def told(found: list[str]) -> int:
    """Says what was found; the exit code."""
    tell("")
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


def write() -> int:
    """Pins the matrix and writes what is made from it; still says what nobody has explained."""
    from invariants.museum.picture import draw

    matrix = kill_matrix(progress=tell)
    put(PINNED, json.dumps(as_json(matrix.trips), indent=1) + "\n")
    put(GUIDE, guide(matrix, PICTURE))
    draw(matrix, GUIDE.with_name(PICTURE))
    return told(problems(matrix, pinned()))


def check() -> int:
    """Compares with what is pinned, and the guide with what it would be."""
    matrix = kill_matrix(progress=tell)
    found = problems(matrix, pinned())
    if GUIDE.read_text() != guide(matrix, PICTURE):
        found.append(f"{GUIDE} is not current; run `make kill-matrix`")
    return told(found)


def main(args: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m invariants.museum", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--write", action="store_true")
    group.add_argument("--check", action="store_true")
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    if (options.write or options.check) and not GUIDE.parent.is_dir():
        parser.error(f"there is no {GUIDE.parent}; run from a checkout")
    try:
        if options.write:
            return write()
        if options.check:
            return check()
        result = selftest(tell)
    except (OSError, invariants.SuiteError) as error:
        parser.error(str(error))
    tell("")
    print("\n".join(result.lines))
    return 0 if result.ok else 1


if __name__ == "__main__":
    sys.exit(main())
