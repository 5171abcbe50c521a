"""Makes the model that comes with the package anew: `python -m projected_grpo.testbed --out FOLDER`, 15 seconds.

The first losses are recorded with it, so that a test can tell within a second that the recipe is still the same.
"""

import argparse
from pathlib import Path

from projected_grpo.testbed.checkpoint import identity, write
from projected_grpo.testbed.model import build
from projected_grpo.testbed.warmup import Recipe, training


def main() -> None:
    """Warms a model up into a folder that is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m projected_grpo.testbed", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the model's folder, which must not exist")
    parser.add_argument("--seed", type=int, default=0, help="of the warm-up; 0 is the one that is shipped")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists; name another folder, or remove it first")
    recipe = Recipe()
    model = build(given.seed, architecture=recipe.architecture)
    losses = list(training(model, given.seed, recipe))
    given.out.mkdir(parents=True)
    about = {**identity(given.seed, recipe), "first_losses": losses[:5], "last_loss": losses[-1]}
    write(model.eval(), given.out, about)
    print(f"{given.out}: loss {losses[0]:.3f} to {losses[-1]:.3f}; projected-grpo train --model {given.out}")


if __name__ == "__main__":
    main()
