"""Experiments as data: arms, warm-ups and seeds, run in parallel, with a table and a figure of what came out.

from projected_grpo.experiment import EXPERIMENTS, carry_out, summary_of

outcomes = carry_out(EXPERIMENTS["arms"], Path("experiments/arms"), workers=2)
summary_of(EXPERIMENTS["arms"], outcomes)
"""

from projected_grpo.experiment.catalogue import EXPERIMENTS
from projected_grpo.experiment.errors import ExperimentError
from projected_grpo.experiment.grid import Arm, Cell, Experiment
from projected_grpo.experiment.outcome import Outcome
from projected_grpo.experiment.running import carry_out
from projected_grpo.experiment.summary import Row, Summary, summary_of

__all__ = [
    "EXPERIMENTS",
    "Arm",
    "Cell",
    "Experiment",
    "ExperimentError",
    "Outcome",
    "Row",
    "Summary",
    "carry_out",
    "summary_of",
]
