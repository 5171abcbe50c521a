"""`python -m invariants.optimizers.record`: records the gradients of a real run that optimizers are measured on.

The specification's loop trains a tiny transformer for as long as a measurement takes; two of its modules are kept.
"""

from dataclasses import replace
from pathlib import Path

import torch

from invariants.optimizers.sequences import RECORDED, RECORDED_MODULES, REFRESHED, STEPS
from reference import Tape


def recorded(steps: int = STEPS + REFRESHED) -> Tape:
    """A run of plain GRPO, without routing; some seconds."""
    from reference.loop import LoopConfig, run  # brings transformers along

    config = LoopConfig(steps=steps)
    *_, (_, tape) = run(replace(config, routing=replace(config.routing, intervention="none")))
    kept = {
        part: {name: getattr(tape, part)[name] for name in RECORDED_MODULES} for part in ("gradients", "basis", "start")
    }
    return Tape(**kept, header=tape.header)


def main() -> None:
    """Writes the tape that ships with the suite."""
    torch.set_num_threads(1)
    path = Path(__file__).with_name(RECORDED)
    recorded().save(path)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
