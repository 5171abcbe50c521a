"""Runs of an optimizer by itself, on gradients that are given."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invariants.optimizers.candidate import Candidate
from invariants.optimizers.held import Held
from invariants.optimizers.paths import Path, seeded

SEED = 20
STORED_AT = (1, 50)  # steps before which a reloaded state has been through bytes, as torch.save writes them


@dataclass(frozen=True, kw_only=True)
class Variation:
    """What one run does otherwise than the plain one.

    seed: of the global generators.
    silent: vectors that never have a gradient.
    order: the vectors in the order in which the optimizer gets them.
    apart: whether every vector is a parameter group of its own.
    as_generator: whether parameters are handed over as a generator.
    reloaded: whether before every step the state moves on into an optimizer that has just been made.
    lr_factor: what the learning rate of every group is multiplied by.
    """

    seed: int = SEED
    silent: tuple[str, ...] = ()
    order: tuple[str, ...] | None = None
    apart: bool = False
    as_generator: bool = False
    reloaded: bool = False
    lr_factor: float = 1.0


PLAIN_RUN = Variation()


def run(
    candidate: Candidate,
    start: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    variation: Variation = PLAIN_RUN,
) -> Path:
    """The path of every vector from start {(r,)} on gradients {(steps, r)}; raises whatever the optimizer raises."""
    with seeded(variation.seed):
        running = Running(candidate, start, variation)
        path = {name: [value] for name, value in start.items()}
        for t, at_once in enumerate(zip(*(g.unbind() for g in gradients.values()), strict=True)):
            if variation.reloaded and t > 0:
                running.reload(through_bytes=t in STORED_AT)
            running.step(dict(zip(gradients, at_once, strict=True)))
            for name, values in path.items():
                values.append(running.vectors[name].detach().clone())
    return {name: torch.stack(values) for name, values in path.items()}


class Running:
    """An optimizer under way."""

    def __init__(self, candidate: Candidate, start: Mapping[str, Tensor], variation: Variation = PLAIN_RUN) -> None:
        self.candidate, self.variation = candidate, variation
        self._make(start)

    def _make(self, values: Mapping[str, Tensor]) -> None:
        self.vectors = {name: nn.Parameter(value.detach().clone()) for name, value in values.items()}
        order: Sequence[str] = self.variation.order or tuple(self.vectors)
        vectors = [self.vectors[name] for name in order]
        groups = [[vector] for vector in vectors] if self.variation.apart else [vectors]
        self.held = Held(self.candidate, groups, as_generator=self.variation.as_generator)
        if self.variation.lr_factor != 1.0:
            for group in self.held.optimizer.param_groups:
                group["lr"] = group["lr"] * self.variation.lr_factor

    def step(self, gradients: Mapping[str, Tensor], *, with_closure: bool = False) -> None:
        """One step; with a closure also where the optimizer could do without one."""
        for name, vector in self.vectors.items():
            vector.grad = (
                None if name in self.variation.silent else gradients[name].clone()
            )  # it may write into its own
        self.held.step(with_closure=with_closure)

    def reload(self, *, through_bytes: bool) -> None:
        """Goes on in a new optimizer, on new vectors with the old values, from the state of the old one."""
        state = self.held.state_dict()
        if through_bytes:
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=False)
        self._make(self.vectors)
        self.held.load_state_dict(state)
