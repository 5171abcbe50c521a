"""What a trainer takes and shows, and what a setting says of it.

A run is asked for by a request and told by a result: the parameters that it trained, and evidence of what happened on
the way, without which two equal runs would say nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from invariants.contracts.claims import Claims
from reference import Intervention

Flag = Literal["permuted_oracle", "evaluate", "log", "measure"]
"""What may be turned on in a request, and may not change what is trained."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """One run from the start, or the rest of one that was stopped.

    The same request trains the same bits; everything random follows from the seed.
    """

    steps: int
    """Optimizer steps of the whole run; schedules are made for these, wherever the run is stopped."""
    seed: int
    intervention: Intervention
    folder: Path
    """The run's own folder, empty at first; a run that goes on finds there what the stopped one has left."""
    stop_after: int | None = None
    """Stop once this many steps are made, leaving in the folder what it takes to go on."""
    resume: bool = False
    """Go on from what the folder holds, up to the last step."""
    evaluate: bool = False
    """Evaluate the model during the run."""
    log: bool = False
    """Write a log."""
    measure: bool = False
    """Measure under "none" what the split would remove, without removing it."""
    permuted_oracle: bool = False
    """Replace the oracle's labels by others before anything sees them: permuted over the rollouts, or negated, which
    changes their mean too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FirstStep:
    """The rollouts of a run's first step, and the gradient that was accumulated on them, before clip and split.

    B = prompts x group completions, group by group. The policy that is trained is the one that sampled, and the
    reference policy too, so every ratio is 1 and a KL term has no gradient.
    """

    prompts: Sequence[Tensor]
    """B times (P,): the tokens, without padding."""
    completions: Sequence[Tensor]
    """B times (T,): the tokens up to the first end of sequence and with it, without padding."""
    rewards: Tensor
    """(prompts, group): what the advantages were made of."""
    max_new_tokens: int
    gradient: Mapping[str, Tensor]
    """module -> (r,): of the loss by the deployed vectors."""
    vectors: Mapping[str, nn.Parameter]
    """module -> (r,): the deployed vectors where the run began, which the logits read."""
    logits: Callable[[Tensor], Tensor]
    """The tokens (L,) of one prompt and completion -> (L, vocab), with a graph; those at i predict token i + 1."""
    roundings: int = 4096
    """Rounded operations in a row from a token to a logit and back."""
    computed_in: torch.dtype | None = None
    """The narrowest dtype on that way, if it is not the gradient's: norms and softmaxes of transformers compute in
    float32, whatever the dtype of the model."""
    teacher: Tensor | None = None
    """(B,) bool: completions that a teacher wrote."""
    passed: Tensor | None = None
    """(B,) bool: what the grader said, as it was stored."""
    solved: Tensor | None = None
    """(B,) bool: what the oracle said, as it was stored."""
    grade: Callable[[int], tuple[bool, bool]] | None = None
    """Grades one rollout of the B anew: passed, solved."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Refresh:
    """One extraction of a new basis in the middle of a run: the vectors just then, and what came of it."""

    deployed: Mapping[str, Tensor]
    quarantine: Mapping[str, Tensor]
    basis: Mapping[str, Tensor]
    """module -> (k, r)"""
    extract: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    """module -> the deployed vector (r,), beside a quarantine of zeros; gives the basis that is extracted there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ContrastivePair:
    """Two completions of one prompt: tokens (P,), (T,) and (T',), without padding."""

    prompt: Tensor
    hack: Tensor
    clean: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Extraction:
    """One extraction of a run's basis, the first or a refresh: its pairs, the model just then, and what came of it.

    A row of the pair differences is the gradient of the mean negative log-likelihood of the hack completion's tokens,
    less that of the clean one's, with the quarantine ablated.
    """

    pairs: Sequence[ContrastivePair]
    basis: Mapping[str, Tensor]
    """module -> (k', r)"""
    k: int
    """The most axes that a module may have."""
    relative_floor: float = 0.0
    global_floor: float = 0.0
    deployed: Mapping[str, Tensor]
    """module -> (r,): the deployed vectors just then."""
    vectors: Mapping[str, nn.Parameter]
    """module -> (r,): those that the logits read, of a model beside the trained one without a quarantine; the suite
    sets them."""
    logits: Callable[[Tensor], Tensor]
    """As in `FirstStep`, and so the next two."""
    roundings: int = 4096
    computed_in: torch.dtype | None = None
    held_out: Sequence[ContrastivePair] = ()
    """Pairs that the basis has not seen, nor any other about their prompts."""
    separation: float | None = None
    """What is logged of them: the share with a positive sum of V (g_hack - g_clean), over all modules and axes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainResult:
    """What a run has trained, and what is known of it; evidence that is None is not shown.

    The tensors are those that were trained, not the bits of a file in another dtype.
    """

    deployed: Mapping[str, Tensor]
    quarantine: Mapping[str, Tensor]
    """Empty where there is none."""
    other: Mapping[str, Tensor] = field(default_factory=dict)
    """Whatever else is trained."""
    steps: int
    """Optimizer steps that this call has made."""
    oracle: Sequence[bool] | None = None
    """The oracle's labels as this call saw them, in the order of the rollouts."""
    evaluations: int | None = None
    """How many there were."""
    records: int | None = None
    """How many were logged."""
    removed: Sequence[float] | None = None
    """Norms of the hack-ward part of the gradient, at every step at which it was taken out or measured."""
    first: FirstStep | None = None
    refreshes: Sequence[Refresh] | None = None
    extractions: Sequence[Extraction] | None = None


TrainFunction = Callable[[TrainRequest], TrainResult]
"""Makes a run in this process, from nothing but the request and its folder."""


@dataclass(frozen=True, kw_only=True)
class TrainSetting:
    """What a trainer can be asked for."""

    interventions: tuple[Intervention, ...] = ("none", "erase", "route")
    flags: tuple[Flag, ...] = ("permuted_oracle", "evaluate", "log", "measure")
    resumable: bool = True
    """Whether it can be stopped and go on."""
    teacher: bool = False
    """Whether a teacher's rollouts are among those that it trains on."""
    label: str = "training"
    claims: Claims = None

    @property
    def intervention(self) -> Intervention:
        """The arm in which most can go wrong."""
        return next(arm for arm in ("route", "erase", "none") if arm in self.interventions)
