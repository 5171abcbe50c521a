"""What is published of the declaration of logs.

python -m projected_grpo.logs --write    write the JSON Schema and docs/logs.md anew
python -m projected_grpo.logs --check    exit code 1 if one of them is not current
"""

import argparse
import sys
from pathlib import Path

from projected_grpo.logs.published import NAME, json_schema_text, page
from projected_grpo.whole_files import whole

ROOT = Path(__file__).parents[2]
SCHEMA_FILE, PAGE = Path(__file__).with_name(NAME), ROOT / "docs" / "logs.md"


def main(args: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m projected_grpo.logs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--write", action="store_true")
    group.add_argument("--check", action="store_true")
    options = parser.parse_args(args)
    if not PAGE.parent.is_dir():
        parser.error(f"there is no {PAGE.parent}; run from a checkout")
    due = {SCHEMA_FILE: json_schema_text(), PAGE: page()}
    if options.write:
        for path, text in due.items():
            with whole(path) as partial:
                partial.write_text(text, encoding="utf-8")
        return 0
    stale = [path for path, text in due.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path} is not current; run python -m projected_grpo.logs --write", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
