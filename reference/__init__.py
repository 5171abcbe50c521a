"""The executable specification of gradient routing: float64, one idea a file, obvious before fast.

Written on torch and the standard library alone, but for `loop` (transformers, to build a tiny model) and `tape`
(safetensors, to store what a run fed its optimizer). Nothing here imports the packages that are checked against it.
"""

from reference.clip import ClipPolicy, clip_factor, global_norm
from reference.drift import Drift, drift
from reference.optimizers import SGD, AdamW, Optimizer
from reference.routed_step import (
    Intervention,
    RoutedState,
    Routing,
    Space,
    gradient_parts,
    initial,
    refreshed,
    routed_step,
)
from reference.split import Gate, MemorylessGate, SplitResult, SplitRule, split
from reference.tape import ForeignTapeError, Tape, TapeError, TruncatedTapeError

__all__ = [
    "SGD",
    "AdamW",
    "ClipPolicy",
    "Drift",
    "ForeignTapeError",
    "Gate",
    "Intervention",
    "MemorylessGate",
    "Optimizer",
    "RoutedState",
    "Routing",
    "Space",
    "SplitResult",
    "SplitRule",
    "Tape",
    "TapeError",
    "TruncatedTapeError",
    "clip_factor",
    "drift",
    "global_norm",
    "gradient_parts",
    "initial",
    "refreshed",
    "routed_step",
    "split",
]
