"""What an experiment is: arms, each a change of one configuration, and the warm-ups and seeds that each is run with."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from projected_grpo.training.config import TrainConfig, as_plain

Changes = Mapping[str, Mapping[str, Any]]  # section of a TrainConfig -> setting -> value


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train, or to treat afterwards what another arm has trained.

    of: the arm whose runs are projected along this arm's basis once, when they are over; None for an arm with runs of
        its own. against, control: the arms that this one is compared with, cell by cell: the post-hoc projection along
        the same V, and the same arm with a random V.
    """

    name: str
    changes: Changes
    of: str | None = None
    against: str | None = None
    control: str | None = None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm with one warm-up and one seed."""

    arm: Arm
    warmup: int
    seed: int

    @property
    def name(self) -> str:
        """As its folder is called."""
        return f"{self.arm.name.replace(', ', '-').replace(' ', '_')}-warmup{self.warmup}-seed{self.seed}"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A question, and the runs that answer it.

    table: heading of a column -> heading of a row -> arm, for a second, smaller table of what varies in two ways.
    """

    name: str
    question: str
    base: TrainConfig
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    warmups: tuple[int, ...] = (0,)
    table: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        for arm in self.arms:
            for other in (arm.of, arm.against, arm.control):
                if other is not None and other not in names:
                    raise ValueError(f"{self.name}: {arm.name} speaks of {other}, which is no arm.")
        for column in self.table.values():
            if strange := set(column.values()) - set(names):
                raise ValueError(f"{self.name}: the table speaks of {', '.join(sorted(strange))}, which is no arm.")

    @cached_property
    def by_name(self) -> dict[str, Arm]:
        """Arms."""
        return {arm.name: arm for arm in self.arms}

    def cells(self) -> Iterator[Cell]:
        """All of them, in the order in which they are run: whole replicates one after the other."""
        for warmup in self.warmups:
            for seed in self.seeds:
                yield from (Cell(arm=arm, warmup=warmup, seed=seed) for arm in self.arms)

    def config(self, cell: Cell) -> TrainConfig:
        """What a cell is run with, but for its model's and its run's folder.

        An arm of another's runs has that one's configuration, with its own basis.
        """
        config = self.base
        chain = [self.by_name[cell.arm.of], cell.arm] if cell.arm.of is not None else [cell.arm]
        for arm in chain:
            for section, changes in arm.changes.items():
                config = replace(config, **{section: replace(getattr(config, section), **changes)})
        return replace(config, run=replace(config.run, seed=cell.seed))

    def on(self, device: str) -> "Experiment":
        """The same on another device."""
        return replace(self, base=replace(self.base, model=replace(self.base.model, device=device)))

    def shortened(self, steps: int) -> "Experiment":
        """The same with runs of so few steps, whatever its arms say; its question says so."""
        changes = [
            replace(arm, changes={**arm.changes, "grpo": {**arm.changes.get("grpo", {}), "steps": steps}})
            for arm in self.arms
        ]
        return replace(self, arms=tuple(changes), question=f"{self.question} (A trial: runs of {steps} steps.)")

    def digest(self) -> str:
        """Of everything that decides what is run and compared; what was made with another is not current.

        The device is no part of it: the same numbers are drawn for another, and results differ by rounding.
        """
        everywhere = self.on("cpu")
        plain = {
            "warmups": self.warmups, "seeds": self.seeds,
            "arms": [
                [
                    arm.name, arm.of, arm.against, arm.control,
                    as_plain(everywhere.config(Cell(arm=arm, warmup=0, seed=0))),
                ]
                for arm in self.arms
            ],
        }  # fmt: skip
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
