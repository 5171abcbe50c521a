"""Makes the model that comes with the package anew: `python -m projected_grpo.testbed --out FOLDER`, 15 seconds."""

from projected_grpo.testbed.warmup import MODELS
from projected_grpo.tiny.command import make

if __name__ == "__main__":
    make("projected_grpo.testbed", __doc__, MODELS)
