"""`python -m projected_grpo.cli.optimizers_guide DIR`: surveys all, and writes DIR/optimizers.md and its picture."""

import sys
from pathlib import Path

import torch

from invariants.optimizers import everything, survey
from invariants.optimizers.against import against_reference
from invariants.optimizers.guide import guide
from invariants.optimizers.reports import write
from invariants.reports import write_file
from projected_grpo.cli.router import Routed


def main(folder: Path) -> None:
    """Some minutes."""
    torch.set_num_threads(1)
    found, compared = survey(everything(), router=Routed), against_reference()
    write_file(folder / "optimizers.md", guide(found, compared, "optimizers.svg"))
    write(found, compared, folder / "optimizers.svg")
    print(f"wrote {folder / 'optimizers.md'}: {found.head}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
