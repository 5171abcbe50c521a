"""The learning rate of a step, computed from its number alone, so that a resumed run has nothing to restore.

    step < w:  lr (step + 1) / w          else  lr (1 + cos(π (step - w) / (steps - w))) / 2,      w = ⌈warmup · steps⌉

Linear warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts).
"""

import math
from typing import Literal

Schedule = Literal["cosine", "constant"]


def learning_rate(step: int, *, lr: float, steps: int, warmup: float, schedule: Schedule = "cosine") -> float:
    """The rate of step 0, 1, ... of `steps`; warmup is a share of the steps.

    >>> [round(learning_rate(step, lr=1.0, steps=6, warmup=0.3), 3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    rising = math.ceil(warmup * steps)
    if step < rising:
        return lr * (step + 1) / rising
    if schedule == "constant":
        return lr
    return lr * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2
