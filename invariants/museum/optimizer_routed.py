"""What goes wrong with an optimizer under routing, and with the routed step around it: one method each."""

from collections.abc import Mapping

import torch
from torch import Tensor

from invariants.museum.descent import Descent, Group
from invariants.museum.exemplars import FADED, HEAVY, LEAKS, broken_optimizer, broken_step, by_reason
from invariants.optimizers.loop import PointLoop
from invariants.optimizers.sequences import Values

TURNED = "scaling coordinates apart turns a vector, out of the span of the basis or towards the hack"


@broken_optimizer(
    "decay of the first half of the parameters",
    caught_by="conformance.keeps_sum@gradient",
    like=FADED,
    bug=10,
    also=by_reason("in another order it is another half", "order_free"),
)
class DecayOfTheFirstHalf(Descent):
    def decayed(self, p: Tensor, group: Group) -> Tensor:
        everything = [other for group in self.param_groups for other in group["params"]]
        decays = any(p is other for other in everything[: len(everything) // 2])
        return super().decayed(p, group if decays else {**group, "weight_decay": 0.0})


@broken_optimizer(
    "preconditioned with a state for each of the two sets",
    caught_by="conformance.keeps_sum@gradient",
    bug=3,
    also=by_reason("what is divided by the size of the gradient is not linear in it", "additive", "homogeneous")
    | by_reason(TURNED, "span@gradient", *LEAKS),
)
class Preconditioned(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        g = super().update(p, group)
        square = self.state[p].setdefault("square", torch.zeros_like(p)).mul_(0.9).addcmul_(g, g, value=0.1)
        return g.div(square.sqrt() + 1e-8)


@broken_optimizer(
    "clips by the norm of all that it holds",
    caught_by="conformance.erase_match@gradient",
    also=by_reason("a gradient over the limit is brought down to it, however large it is", "additive", "homogeneous")
    | by_reason("the gradients of the others are in the norm", "separable"),
)
class ClipsByTheNormOfAll(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        return super().update(p, group).div(torch.cat(self.gradients()).norm().clamp(min=1))


@broken_optimizer(
    "a learning rate for every coordinate", caught_by="conformance.span@gradient", also=by_reason(TURNED, *LEAKS)
)
class RatePerCoordinate(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        return super().update(p, group) * torch.linspace(0.5, 1.5, len(p), dtype=p.dtype)


@broken_optimizer(
    "a step is corrected by the gradient before it",
    caught_by="conformance.no_update_leak@gradient",
    also=by_reason("so it is after a refresh", "refreshed_update@gradient"),
)
class Optimistic(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        g, last = super().update(p, group), self.state[p].get("last", torch.zeros_like(p))
        self.state[p]["last"] = g.clone()
        return g.mul(2).sub(last)


@broken_optimizer(
    "ascends",
    caught_by="conformance.no_displacement_leak@gradient",
    also=by_reason(
        "the split has left what leads away from the hack, and every step goes the other way",
        "no_update_leak@gradient", "refreshed_update@gradient",
    ),
)  # fmt: skip
class Ascends(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        return -super().update(p, group)


@broken_optimizer(
    "momentum outlives the basis that it was gathered under",
    caught_by="conformance.refreshed_update@gradient",
    kwargs=HEAVY.kwargs,
    bug=11,
)
class Remembers(Descent):
    pass


@broken_step("the optimizer goes on from the deployed vector", caught_by="conformance.no_ratchet@displacement")
class GoesOnFromTheDeployed(PointLoop):
    def step(self, g: Mapping[str, Tensor]) -> None:
        self.point = {name: p.detach().clone() for name, p in self.deployed.items()}
        super().step(g)


@broken_step(
    "what was routed before a refresh is added to what is routed after it",
    caught_by="conformance.refreshed_span@displacement",
)
class AddsWhatWasRouted(PointLoop):
    old: Mapping[str, Tensor] = {}

    def refresh(self, basis: Values) -> None:
        super().refresh(basis)
        self.old = {name: q.detach().clone() for name, q in self.quarantine.items()}

    def step(self, g: Mapping[str, Tensor]) -> None:
        super().step(g)
        with torch.no_grad():
            for name, q in self.old.items():
                self.quarantine[name].add_(q)


@broken_step(
    "a refresh is forgotten",
    caught_by="conformance.refreshed_displacement@displacement",
    also=by_reason("the quarantine is in the span of the old basis", "refreshed_span@displacement"),
)
class ForgetsTheRefresh(PointLoop):
    def refresh(self, basis: Values) -> None:
        pass
