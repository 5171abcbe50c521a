"""One object that owns the order of a routed step, and drops into any training loop.

    accumulate g  →  check  →  clip  →  split  →  base.step()  →  leave the gradients as they were

Per adapted module there are two vectors of equal length; the training model runs at their sum, the deployed model at
the first alone. `space` says what is split along the hack basis:

    gradient      g itself; each vector has an optimizer state of its own (Cloud et al. 2024, arXiv:2410.04332)
    update        the step of ONE optimizer, which runs at the combined point on the unsplit g
    displacement  everything learned so far, the combined point minus its start, after each step

What each combination guarantees is printed by `RoutedOptimizer.explain`.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from projected_grpo import checkpoint
from projected_grpo.basis import Basis
from projected_grpo.binding import check_fit, fingerprints_of, vectors_of
from projected_grpo.checkpoint import Progress
from projected_grpo.claims import Claim, Guarantee, claims_of, explanation
from projected_grpo.clip import ClipPolicy, Fed, clip_unsplit, global_norm, split_and_clip
from projected_grpo.diagnostics import Diagnostics, StepRecord
from projected_grpo.posthoc import combined
from projected_grpo.preconditions import check_base, check_finite, parameters_of
from projected_grpo.probes import Measurement
from projected_grpo.routing import Intervention, Routing, Space
from projected_grpo.split import DEFAULT_RULE, GroupedSplit, SplitRule
from projected_grpo.vectors import VectorPair
from projected_grpo.wrapper import Wrapper


class RoutedOptimizer(Wrapper):
    """Wraps a constructed optimizer so that its steps are routed.

    A step reads the gradients that have accumulated and leaves them as it found them; what was fed to `base` instead
    can be seen from a step hook of `base`, where under route a quarantine's gradient is the removed part, and under
    none and erase it is None (never zeros, so that every optimizer skips it). Gradients of the quarantine vectors are
    cleared as they arrive: they equal the deployed ones, and a trainer that clips by the global norm before step()
    would count them twice. Clipping there instead of by max_norm is the policy `before`.

    Outside gradient space one optimizer moves the combined point, which it finds in the deployed vector; there a
    deployed vector without a gradient has an update of zero. Training starts where the vectors are at the first step;
    what else moves them later (an average of weights, a reload) is overwritten by the next step, so load a state
    together with the vectors that it belongs to.

    `state`, `param_groups` and `defaults` are base's own objects, so learning-rate schedulers, accelerate and
    transformers' Trainer work on either. Step hooks of either fire once a step; torch's global ones fire for both.

    Arguments:
        base: any optimizer that holds the deployed vectors, and under route the quarantine vectors. Other parameters
            in it are stepped as always, and count with the deployed set in global norms.
        vectors: module name → VectorPair of (r,) parameters, or an adapted model.
        basis: the hack basis; modules that it doesn't name keep all of their gradient.
        intervention, space, clip, max_norm, rule: see `Routing`.

    Raises:
        SettingError, UnsupportedCombinationError: the settings mean nothing, alone or together.
        BindingError, StaleBasisError: basis and vectors don't fit.
        VectorNotOptimizedError: base does not hold a vector.
        ClosureOptimizerError: base needs a closure.

    >>> pair = VectorPair(nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2)))
    >>> base = torch.optim.SGD([*pair], lr=1.0)
    >>> routed = RoutedOptimizer(base, {"proj": pair}, Basis({"proj": torch.tensor([[1.0, 0.0]])}))
    >>> ((pair.deployed + pair.quarantine) @ torch.tensor([3.0, 4.0])).backward()
    >>> routed.step()
    >>> (pair.deployed + pair.quarantine).tolist(), pair.deployed.tolist()
    ([-3.0, -4.0], [0.0, -4.0])
    """

    def __init__(
        self,
        base: Optimizer,
        vectors: Mapping[str, VectorPair] | nn.Module,
        basis: Basis,
        *,
        intervention: Intervention = "route",
        space: Space = "displacement",
        clip: ClipPolicy = "before",
        max_norm: float | None = None,
        rule: SplitRule = DEFAULT_RULE,
    ) -> None:
        super().__init__(base)
        self.routing = Routing(intervention=intervention, space=space, clip=clip, max_norm=max_norm, rule=rule)
        self.vectors = vectors_of(vectors)
        self._fingerprints = fingerprints_of(vectors)
        self._progress: Progress | None = None
        self._record: StepRecord | None = None
        self._measurement = Measurement()
        self._routed = {id(vector) for pair in self.vectors.values() for vector in pair}
        self.refresh(basis)
        check_base(base, self.vectors, self.routing)
        clear = _clearing_hook(self)
        for pair in self.vectors.values():
            if pair.quarantine is not None and pair.quarantine.requires_grad:
                pair.quarantine.register_post_accumulate_grad_hook(clear)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One routed step.

        Arguments:
            closure: evaluated once, with gradients enabled, before anything else; base steps without it.

        Returns:
            What the closure returned, or None.

        Raises:
            NonFiniteGradientError: names the first gradient with NaN or infinity. Nothing was changed, and the next
                step starts from the same state.

        Whatever base.step() raises passes through, with all vectors and gradients back at what they were.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for _, p in self._quarantines():
            p.grad = None
        deployed = {name: pair.deployed for name, pair in self.vectors.items() if pair.deployed.grad is not None}
        others = [p for p in parameters_of(self.base) if p.grad is not None and id(p) not in self._routed]
        if not deployed:  # perhaps because something has replaced the Parameter objects since
            check_base(self.base, self.vectors, self.routing)
        g = {name: p.grad for name, p in deployed.items() if p.grad is not None}
        other_gradients = [p.grad for p in others if p.grad is not None]
        norm = global_norm(g.values(), other_gradients)
        if not torch.isfinite(norm):
            check_finite(g, other_gradients)

        fed = self._fed(g, other_gradients, norm)
        accumulated = fed.accumulated or self._split.project(g)
        progress = self._progress or self._at_the_start()
        before = {name: pair.deployed.clone() for name, pair in self.vectors.items()}
        quarantined = {name: p.clone() for name, p in self._quarantines()}
        loans = [(p, fed.deployed[name]) for name, p in deployed.items()]
        loans += [
            (p, gradient) for name, p in self._quarantines() if (gradient := fed.quarantine.get(name)) is not None
        ]
        loans += list(zip(others, fed.others, strict=True))
        try:
            with _lent(loans):
                if self.routing.moves_the_point:
                    progress = self._step_at_the_point(progress, before, quarantined)
                else:
                    self.base.step()
        except BaseException:
            for name, pair in self.vectors.items():
                pair.deployed.copy_(before[name])
            for name, p in self._quarantines():
                p.copy_(quarantined[name])
            raise
        self._progress = progress
        self._record = StepRecord(accumulated, fed, norm, before, progress.start, self._split)
        return loss

    def _fed(self, g: dict[str, Tensor], others: list[Tensor], norm: Tensor) -> Fed:
        if self.routing.intervention == "none" or self.routing.moves_the_point:
            return clip_unsplit(g, others, norm, self.routing.max_norm)
        return split_and_clip(
            g,
            others,
            norm,
            self._split,
            clip=self.routing.clip,
            max_norm=self.routing.max_norm,
            route=self.routing.intervention == "route",
        )

    def _at_the_start(self) -> Progress:
        start = {name: pair.deployed.detach().clone() for name, pair in self.vectors.items()}
        if not self.routing.moves_the_point:
            return Progress(start, {})
        if self.routing.intervention == "erase":
            return Progress(start, dict(start))
        return Progress(start, {name: combined(pair) for name, pair in self.vectors.items()})

    def _step_at_the_point(
        self, progress: Progress, deployed: Mapping[str, Tensor], quarantine: Mapping[str, Tensor]
    ) -> Progress:
        """Base steps once, at the combined point on the unsplit gradient; then the parts are written.

        update:        deployed -= kept(-Δ),  quarantine -= removed(-Δ),  Δ the change of the point
        displacement:  deployed = start - kept(-T),  quarantine = -removed(-T),  T the point minus the start
        """
        for name, pair in self.vectors.items():
            pair.deployed.copy_(progress.point[name])
        self.base.step()
        point = {name: pair.deployed.clone() for name, pair in self.vectors.items()}
        by_update = self.routing.space == "update"
        origin = progress.point if by_update else progress.start
        parts = self._split({name: origin[name] - point[name] for name in point})
        for name, pair in self.vectors.items():
            pair.deployed.copy_((deployed if by_update else origin)[name] - parts.kept[name])
        if self.routing.intervention == "route":
            for name, p in self._quarantines():
                p.copy_(quarantine[name] - parts.removed[name] if by_update else -parts.removed[name])
        return Progress(progress.start, point)

    def refresh(self, basis: Basis) -> None:
        """Replaces the basis from the next step on.

        In displacement space the next step splits everything learned so far along the new basis. In gradient and
        update space what was routed stays where it is, so the quarantine then holds parts along both; and in gradient
        space the momenta still carry what the old basis let through.

        Raises:
            BindingError, StaleBasisError: the basis does not fit; the old one stays.
        """
        check_fit(self.vectors, basis, self._fingerprints)
        self._split = GroupedSplit(basis, self.routing.rule)
        self.basis = basis

    def diagnostics(self) -> Diagnostics:
        """What the last step did, computed now, with one synchronisation with the device.

        To be called before anything else moves the deployed vectors. Of a base that overwrites the gradients that it
        is given, the norm and share of the fed gradient are those of what it left.
        """
        if self._record is None:
            return Diagnostics()
        return self._record.read({name: pair.deployed.detach() for name, pair in self.vectors.items()})

    def explain(self) -> str:
        """A table of what this configuration guarantees, each with its theorem or the hypothesis that is missing.

        What the base optimizer is (linear, coupled, …) is measured on small probe vectors, once.
        """
        measured = self._measurement.of(self.base, self._routed)
        return explanation(self.routing, measured, equal_hyperparameters=self._equal_hyperparameters())

    def guarantees(self) -> dict[Guarantee, Claim]:
        """What `explain` prints, as data: guarantee → whether it holds, and why or why not."""
        measured = self._measurement.of(self.base, self._routed)
        return claims_of(self.routing, measured, equal_hyperparameters=self._equal_hyperparameters())

    def _equal_hyperparameters(self) -> bool:
        """Whether both vectors of every pair are stepped with the same options."""
        group_of = {id(p): group for group in self.param_groups for p in group["params"]}
        pairs = [pair for pair in self.vectors.values() if id(pair.quarantine) in group_of]
        groups = [(group_of[id(pair.deployed)], group_of[id(pair.quarantine)]) for pair in pairs]
        return all(a is b or _options(a) == _options(b) for a, b in groups)

    def state_dict(self) -> dict[str, Any]:
        """The state of `base`, and under "routing" all else that a bitwise resumption needs; the vectors are the
        model's to save."""
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self.base.state_dict()
        state[checkpoint.KEY] = checkpoint.packed(self.routing, list(self.vectors), self.basis, self._progress)
        for after in self._optimizer_state_dict_post_hooks.values():
            state = after(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned, basis included.

        Raises:
            StateMismatchError: the state belongs to other settings, names or shapes; nothing was changed.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        basis, progress = checkpoint.unpacked(state_dict, self.routing, self.vectors, self.base, self._fingerprints)
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != checkpoint.KEY})
        self.refresh(basis)
        self._progress, self._record = progress, None
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __repr__(self) -> str:
        return f"RoutedOptimizer({self.routing}; {len(self.vectors)} modules; {self.basis!r}; base {self.base!r})"

    def _quarantines(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, pair.quarantine) for name, pair in self.vectors.items() if pair.quarantine is not None)


@contextmanager
def _lent(loans: list[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Inside the block the parameters have these gradients, and afterwards their own again."""
    own = [parameter.grad for parameter, _ in loans]
    try:
        for parameter, gradient in loans:
            parameter.grad = gradient
        yield
    finally:
        for (parameter, _), returned in zip(loans, own, strict=True):
            parameter.grad = returned


def _clearing_hook(optimizer: RoutedOptimizer) -> Callable[[Tensor], None]:
    """Drops a gradient as it arrives, for as long as the optimizer lives."""
    alive = weakref.ref(optimizer)

    def clear(parameter: Tensor) -> None:
        if alive() is not None:
            parameter.grad = None

    return clear


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: repr(value) for key, value in group.items() if key != "params"}
