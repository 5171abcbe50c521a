"""What goes wrong with an optimizer by itself: each broken one overrides one method."""

from typing import Any

import torch
from torch import Tensor, nn

from invariants.museum.descent import Descent, Group, Signs
from invariants.museum.exemplars import FADED, HEAVY, PLAIN, SIGNS, broken_optimizer, by_reason

NEVER_TWICE = "two runs are compared, and no two runs are alike"


@broken_optimizer("a warm-up from zero never advances", caught_by="conformance.moves_all")
class NeverWarm(Descent):
    warmth = 0.0

    def rate(self, group: Group) -> float:
        return super().rate(group) * self.warmth


@broken_optimizer(
    "linear while it warms up, and clamped afterwards",
    caught_by="conformance.additive",
    also=by_reason("a larger gradient over the limit moves it no farther", "homogeneous")
    | by_reason("parts of a gradient stay below the limit that the whole exceeds", "keeps_sum@gradient")
    | by_reason(
        "a vector whose largest coordinates are clamped is turned",
        "span@gradient", "no_update_leak@gradient", "refreshed_update@gradient",
    ),
)  # fmt: skip
class ClampedLate(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        state = self.state[p]
        state["step"] = state.get("step", 0) + 1
        update = super().update(p, group)
        return update if state["step"] <= 60 else update.clamp(-1, 1)


@broken_optimizer(
    "one step count for all parameters, which each of them advances",
    caught_by="conformance.separable",
    also=by_reason("whoever comes first is a count behind whoever comes last", "order_free")
    | by_reason("a quarantine that is fed advances it too", "keeps_sum@gradient", "erase_match@gradient"),
)
class SharedCount(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        shared = self.param_groups[0]
        shared["count"] = shared.get("count", 0) + 1
        return super().update(p, group).mul(1 - 0.9 ** shared["count"])


@broken_optimizer(
    "each is scaled by those before it",
    caught_by="conformance.separable",
    also=by_reason("the first of a group is scaled by none", "order_free", "groups_free")
    | by_reason(
        "a scale that depends on the size of moves is not linear",
        "additive",
        "homogeneous",
        "lr_proportional",
        "keeps_sum@gradient",
    )
    | by_reason("the foreach path moves all at once", "paths_agree"),
)
class ScaledByThoseBefore(Descent):
    def one_by_one(self, moving: list[Tensor], moves: list[Tensor]) -> None:
        before = 0.0
        for p, move in zip(moving, moves, strict=True):
            p.sub_(move / (1 + before))
            before = float(move.norm())


@broken_optimizer(
    "every gradient is brought to length one",
    caught_by="conformance.homogeneous",
    also=by_reason("vectors of length one do not add up to one of length one", "additive", "keeps_sum@gradient"),
)
class Normalised(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        return nn.functional.normalize(super().update(p, group), dim=0)


@broken_optimizer("a large epsilon beside the size of the gradient", caught_by="conformance.scale_free", like=SIGNS)
class LargeEpsilon(Signs):
    def update(self, p: Tensor, group: Group) -> Tensor:
        g = self.decayed(p, group)
        return g.div(g.abs() + 0.1)


@broken_optimizer("the learning rate is read once, when it is made", caught_by="conformance.lr_proportional")
class RateReadOnce(Descent):
    def rate(self, group: Group) -> float:
        return super().rate(self.defaults)


@broken_optimizer("None is taken for zeros, and decays", caught_by="conformance.none_inert", like=FADED, bug=6)
class NoneTakenForZeros(Descent):
    def moving(self, group: Group) -> list[Tensor]:
        for p in group["params"]:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        return super().moving(group)


@broken_optimizer(
    "decay that nobody asked for",
    caught_by="conformance.zeros_inert",
    kwargs=FADED.kwargs,
    also={id: why for id, why in FADED.lacks.items() if id not in {*PLAIN.lacks, "conformance.zeros_inert"}},
)
class Decays(Descent):
    pass


@broken_optimizer(
    "a counter of the class outlives the run",
    caught_by="conformance.repeats",
    also=by_reason(
        NEVER_TWICE, "additive", "separable", "homogeneous", "lr_proportional", "draws_nothing", "resumes",
        "takes_generators", "order_free", "groups_free", "paths_agree", "keeps_sum@gradient", "erase_match@gradient",
        "no_ratchet@displacement",
    ),
)  # fmt: skip
class CountedByTheClass(Descent):
    count = 0

    def rate(self, group: Group) -> float:
        CountedByTheClass.count += 1
        return super().rate(group) * (1 + 1e-6 * self.count)


@broken_optimizer(
    "the learning rate is jittered by the global generator",
    caught_by="conformance.draws_nothing",
    also=by_reason("every group draws a jitter of its own", "groups_free"),
)
class Jittered(Descent):
    def rate(self, group: Group) -> float:
        return super().rate(group) * (1 + 0.01 * float(torch.rand(())))


@broken_optimizer("momentum missing from its state", caught_by="conformance.resumes", like=HEAVY)
class MomentumMissing(Descent):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "state": {}}


@broken_optimizer(
    "state restored to the parameters of a group backwards", caught_by="conformance.resumes", like=HEAVY, bug=13
)
class RestoredBackwards(Descent):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = [{**group, "params": group["params"][::-1]} for group in state_dict["param_groups"]]
        super().load_state_dict({**state_dict, "param_groups": groups})


@broken_optimizer(
    "a first look takes a parameter out of the generator", caught_by="conformance.takes_generators", bug=14
)
class FirstLook(Descent):
    def __init__(self, params: Any, **kwargs: Any) -> None:
        self.first = next(iter(params))
        super().__init__(params, **kwargs)


@broken_optimizer(
    "later parameters learn more slowly",
    caught_by="conformance.order_free",
    also=by_reason("the quarantine comes after the deployed vectors, and learns more slowly", "keeps_sum@gradient"),
)
class SlowerByPosition(Descent):
    def update(self, p: Tensor, group: Group) -> Tensor:
        everything = [other for group in self.param_groups for other in group["params"]]
        position = next(n for n, other in enumerate(everything) if other is p)
        return super().update(p, group) * 0.9**position


@broken_optimizer("only the first parameter group is stepped", caught_by="conformance.groups_free")
class FirstGroupOnly(Descent):
    def moving(self, group: Group) -> list[Tensor]:
        return super().moving(group) if group is self.param_groups[0] else []


@broken_optimizer("the foreach path forgets momentum", caught_by="conformance.paths_agree", like=HEAVY, bug=13)
class ForeachForgetsMomentum(Descent):
    def at_once(self, moving: list[Tensor], moves: list[Tensor]) -> None:
        gradients = [p.grad for p in moving if p.grad is not None]
        torch._foreach_add_(moving, gradients, alpha=-self.rate(self.defaults))


@broken_optimizer("NaN is swallowed", caught_by="conformance.nonfinite")
class NaNSwallowed(Descent):
    def refuse_non_finite(self) -> None:
        pass


@broken_optimizer("eval() takes another step", caught_by="conformance.only_steps_move")
class StepsInEval(Descent):
    def eval(self) -> None:
        self.step()


@broken_optimizer("zero_grad() shrinks the parameters too", caught_by="conformance.only_steps_move")
class ShrinksInZeroGrad(Descent):
    @torch.no_grad()
    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.5)
        super().zero_grad(set_to_none)


@broken_optimizer("the loss is evaluated a second time to be logged", caught_by="conformance.evaluates_once")
class EvaluatesTwice(Descent):
    def loss(self, closure: Any) -> Any:
        super().loss(closure)
        return super().loss(closure)
