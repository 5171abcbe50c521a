"""`python -m projected_grpo.testbed --out FOLDER`, and the other testbeds alike: makes a warmed-up model anew.

The first losses are recorded with it, so that a test can tell within a second that the recipe is still the same.
"""

import argparse
from pathlib import Path
from typing import Any

from projected_grpo.tiny.checkpoint import Family


def make(package: str, about: str | None, models: Family[Any]) -> None:
    """Warms a model of the family up into a folder that is not there yet."""
    parser = argparse.ArgumentParser(prog=f"python -m {package}", description=about)
    parser.add_argument("--out", type=Path, required=True, help="the model's folder, which must not exist")
    parser.add_argument("--seed", type=int, default=0, help="of the warm-up; 0 is the one that is shipped")
    given = parser.parse_args()
    if given.out.exists():
        parser.error(f"{given.out} exists; name another folder, or remove it first")
    recipe = models.default
    model = models.build(given.seed, architecture=recipe.architecture)
    losses = list(models.training(model, given.seed, recipe))
    given.out.mkdir(parents=True)
    recorded = {**models.identity(given.seed, recipe), "first_losses": losses[:5], "last_loss": losses[-1]}
    models.write(model.eval(), given.out, recorded)
    print(f"{given.out}: loss {losses[0]:.3f} to {losses[-1]:.3f}; projected-grpo train --model {given.out}")
