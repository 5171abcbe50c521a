"""Freezing a release.

python -m regression --freeze           freeze the declaration of logs under the version that it has
python -m regression --freeze RUN       and the log of a finished run, by its folder
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

from projected_grpo.logs import SCHEMA, recover
from regression.append_only import declaration, freeze
from regression.releases import RELEASES


def freeze_log(run: Path, version: str, folder: Path = RELEASES) -> Path:
    """Copies a log with what it holds; raises FileExistsError for a version that is there already."""
    text = (run / "log.jsonl").read_bytes()
    recovered = recover(run / "log.jsonl")
    if not recovered.complete:
        raise ValueError(f"{run} is no finished run: {recovered.problem}.")
    lines = [{"event": entry.event, "step": entry.step, "values": entry.values} for entry in recovered.entries]
    place = folder / version
    place.mkdir()
    (place / "log.jsonl").write_bytes(text)
    expected = {"sha256": hashlib.sha256(text).hexdigest(), "lines": lines}
    (place / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    return place


def main(args: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m regression", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--freeze", action="store_true", required=True)
    parser.add_argument("run", nargs="?", type=Path)
    options = parser.parse_args(args)
    try:
        if options.run is None:
            print(freeze(declaration()))
        else:
            print(freeze_log(options.run, f"v{SCHEMA}"))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
