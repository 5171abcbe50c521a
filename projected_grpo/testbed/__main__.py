"""Makes the model that comes with the package anew: `python -m projected_grpo.testbed`, 15 seconds.

The first losses are recorded with it, so that a test can tell within a second that the recipe is still the same.
"""

from projected_grpo.testbed.checkpoint import SHIPPED, identity, write
from projected_grpo.testbed.model import build
from projected_grpo.testbed.warmup import Recipe, training

if __name__ == "__main__":
    recipe = Recipe()
    model = build(0, architecture=recipe.architecture)
    losses = list(training(model, 0, recipe))
    SHIPPED.mkdir(parents=True, exist_ok=True)
    write(model.eval(), SHIPPED, {**identity(0, recipe), "first_losses": losses[:5], "last_loss": losses[-1]})
    print(f"{SHIPPED}: loss {losses[0]:.3f} to {losses[-1]:.3f}")
