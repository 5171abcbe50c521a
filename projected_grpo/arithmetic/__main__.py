"""Makes the model that comes with the package anew: `python -m projected_grpo.arithmetic --out FOLDER`, 20 seconds."""

from projected_grpo.arithmetic.warmup import MODELS
from projected_grpo.tiny.command import make

if __name__ == "__main__":
    make("projected_grpo.arithmetic", __doc__, MODELS)
