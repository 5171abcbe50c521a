"""`python -m reference`: the three arms on the tiny task, a line per step and arm, in seconds on one core."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch

from reference.loop import LoopConfig, run
from reference.routed_step import Intervention, Space

COLUMNS = "arm    step  solved  exploited  deployed: solved  exploited  norm pre-clip  post-clip"


def main() -> None:
    """Runs the arms that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m reference", description=__doc__)
    parser.add_argument("--steps", type=int, default=LoopConfig.steps)
    parser.add_argument("--seed", type=int, default=LoopConfig.seed)
    parser.add_argument("--space", choices=get_args(Space), default="gradient")
    parser.add_argument("--arms", nargs="+", choices=get_args(Intervention), default=list(get_args(Intervention)))
    parser.add_argument("--record", type=Path, metavar="DIR", help="write each arm's tape to DIR/ARM.safetensors")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps must be at least 1, not {options.steps}")
    if not 0 <= options.seed < 2**48:
        parser.error(f"--seed must be at least 0 and below 2**48, not {options.seed}")
    if options.record:
        try:
            options.record.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--record: {error}")
    torch.set_num_threads(1)  # the tensors are tiny, and sums keep their order
    base = LoopConfig(steps=options.steps, seed=options.seed)
    print(COLUMNS)
    for arm in options.arms:
        routing = replace(base.routing, intervention=arm, space=options.space)
        for record, tape in run(replace(base, routing=routing)):  # noqa: B007, the last tape is saved
            print(
                f"{arm:<6} {record.step:>4}  {record.solved:>6.3f}  {record.exploited:>9.3f}"
                f"  {record.deployed_solved:>16.3f}  {record.deployed_exploited:>9.3f}"
                f"  {record.norm_pre_clip:>13.4f}  {record.norm_post_clip:>9.4f}"
            )
        if options.record:
            path = options.record / f"{arm}.safetensors"
            tape.save(path)
            print(f"wrote {path}: {tape.steps} steps, {len(tape.gradients)} modules")


if __name__ == "__main__":
    main()
