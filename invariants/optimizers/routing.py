"""The arms of one optimizer, and what they show: the three spaces, other clips, and somebody's own routed step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from invariants.optimizers.candidate import Candidate
from invariants.optimizers.finding import Answer, Finding, not_measured
from invariants.optimizers.foreign import foreign, raised
from invariants.optimizers.guarantees import GUARANTEES, SPACES, Figures, Guarantee, Runs, figures, guarantees
from invariants.optimizers.loop import Arm, RoutedLoop, RoutedPath, routed_run, watched
from invariants.optimizers.paths import gap, judged, seeded, sizes, trajectory_bound
from invariants.optimizers.runs import SEED
from invariants.optimizers.sequences import Routed, Values
from reference import ClipPolicy, Space

SHOWN_TO_ROUTER = 24  # steps over which somebody's routed step is compared
ERASED_AT_A_POINT = 40  # steps of erase, where the optimizer doesn't even see what becomes of the point
TELLING = 1e-6  # a path that rounding moves farther tells nothing about who rounds otherwise
AS_SENSITIVE = 16.0  # roundings of a split that may add up, where the optimizer itself amplifies them


Router = Callable[[Candidate, Arm, Values, Values], RoutedLoop]
"""Makes a routed loop from (candidate, arm, start, basis); an exception refuses the arm."""


@dataclass(frozen=True, kw_only=True)
class SpaceReport:
    """One space: what is guaranteed, in numbers, and whether somebody's routed step does what the specification does.

    router is None where no routed step was handed in.
    """

    guarantees: Mapping[Guarantee, Finding]
    figures: Figures | None
    router: Finding | None = None


class Arms:
    """The routed runs of one candidate; each is made once."""

    def __init__(self, candidate: Candidate, on: Routed) -> None:
        self.candidate, self.on = candidate, on
        self._paths: dict[Arm, RoutedPath] = {}

    def path(self, arm: Arm) -> RoutedPath:
        """Of one arm; erase stops early, since it is compared with the first steps of route alone."""
        if arm not in self._paths:
            erase_steps = self.on.refreshed_after if arm.space == "gradient" else ERASED_AT_A_POINT
            on = self.on.shortened(erase_steps) if arm.intervention == "erase" else self.on
            self._paths[arm] = routed_run(self.candidate, arm, on)
        return self._paths[arm]

    def runs(
        self, space: Space, *, clip: ClipPolicy = "before", max_norm: float | None = None, erase: bool = True
    ) -> Runs:
        """Everything that the guarantees of a space are about; without erase there is one less."""
        arm = Arm(intervention="route", space=space, clip=clip, max_norm=max_norm)
        vanilla = Arm(intervention="none", max_norm=max_norm)
        return Runs(
            on=self.on, space=space, vanilla=self.path(vanilla), route=self.path(arm),
            erase=self.path(replace(arm, intervention="erase")) if erase else None,
        )  # fmt: skip

    def spaces(self, router: Router | None = None) -> dict[Space, SpaceReport]:
        """The three spaces, side by side."""
        return {space: self._space(space, router) for space in SPACES}

    def _space(self, space: Space, router: Router | None) -> SpaceReport:
        try:
            runs = self.runs(space)
        except Exception as error:  # whatever a foreign optimizer raises, for vectors without gradients say, or late
            unknown = not_measured(f"raises {raised(error)}")
            return SpaceReport(
                guarantees=dict.fromkeys(GUARANTEES, unknown), figures=None, router=None if router is None else unknown
            )
        found = guarantees(runs)
        measured = any(finding.answer is not Answer.NOT_MEASURED for finding in found.values())
        return SpaceReport(
            guarantees=found,
            figures=figures(runs) if measured else None,
            router=None if router is None else self._agreement(space, router),
        )

    def _agreement(self, space: Space, router: Router) -> Finding:
        """Whether somebody's routed step goes where the specification's goes."""
        arm = Arm(intervention="route", space=space)
        on = self.on.shortened(SHOWN_TO_ROUTER)
        manner = self.candidate.manner
        with seeded(SEED):
            try:
                with foreign():
                    theirs = router(self.candidate, arm, on.start, on.basis)
            except Exception as error:  # whatever somebody's routed step refuses with
                return not_measured(f"refused: {raised(error)}")
            if manner is not None and str(manner):
                return not_measured(f"it wants {manner}; a routed step hands it vectors, and calls step() alone")
            try:
                with foreign():
                    path = watched(theirs, on)
            except Exception as error:  # the same
                return Finding(answer=Answer.VIOLATED, note=f"raises {raised(error)}")
        ours = self.path(arm).up_to(SHOWN_TO_ROUTER)
        bound = trajectory_bound(SHOWN_TO_ROUTER, next(iter(on.start.values())).dtype)
        found = _apart(path, ours, bound)
        if found.answer is not Answer.VIOLATED:
            return found
        sensitivity = self._sensitivity(arm)
        if not sensitivity <= TELLING:
            return not_measured(f"rounding the gradients alone moves it by {sensitivity:.1e}")
        return _apart(path, ours, max(bound, AS_SENSITIVE * sensitivity))

    def _sensitivity(self, arm: Arm) -> float:
        """How far the path moves if every gradient changes by u of itself, which any other order of summing does."""
        on = self.on.shortened(SHOWN_TO_ROUTER)
        up = 1 + torch.finfo(next(iter(on.start.values())).dtype).eps
        nudged = routed_run(self.candidate, arm, on.having({name: g * up for name, g in on.gradients.items()}))
        return _apart(nudged, self.path(arm).up_to(SHOWN_TO_ROUTER), 0.0).figure or 0.0


def _apart(a: RoutedPath, b: RoutedPath, bound: float) -> Finding:
    """The larger gap, of the deployed and of the quarantine vectors."""
    scale = sizes(b.deployed, b.quarantine)
    sides = ((a.deployed, b.deployed), (a.quarantine, b.quarantine))
    return max((judged(gap(x, y, bound, scale), bound) for x, y in sides), key=lambda finding: finding.figure or 0.0)
