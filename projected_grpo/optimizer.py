"""One object that owns the order of a routed step, and drops into any training loop.

    accumulate g  →  check  →  clip  →  split  →  base.step()  →  leave the gradients as they were

Per adapted module there are two vectors of equal length; the training model runs at their sum, the deployed model at
the first alone. `space` says what is split along the hack basis:

    gradient      g itself; each vector has an optimizer state of its own (Cloud et al. 2024, arXiv:2410.04332)
    update        the step of ONE optimizer, which runs at the combined point on the unsplit g
    displacement  everything learned so far, the combined point minus its start, after each step

What each combination guarantees is printed by `RoutedOptimizer.explain`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.optim import Optimizer

from projected_grpo import checkpoint, kernels
from projected_grpo.basis import Basis
from projected_grpo.binding import check_fit, fingerprints_of, vectors_of
from projected_grpo.claims import Claim, Guarantee, claims_of, explanation
from projected_grpo.clip import ClipPolicy, Fed, clip_factor, clip_unsplit, split_and_clip
from projected_grpo.diagnostics import Diagnostics, StepRecord
from projected_grpo.errors import InterruptedStepError, ProjectedGRPOError
from projected_grpo.gradients import Found, drop_on_arrival, find, lent
from projected_grpo.norms import global_norm, in_own_dtypes, plain_norm, trusted
from projected_grpo.preconditions import check_base, check_finite
from projected_grpo.probes import MeasureOnce
from projected_grpo.progress import Progress, at_the_start, stacked
from projected_grpo.routing import Intervention, Routing, Space
from projected_grpo.split import DEFAULT_RULE, GroupedSplit, SplitRule
from projected_grpo.stacks import Layout, Stacks
from projected_grpo.vector_set import VectorSet
from projected_grpo.vectors import VectorSource
from projected_grpo.wrapper import Wrapper


class RoutedOptimizer(Wrapper):
    """Wraps a constructed optimizer so that its steps are routed.

    A step reads the gradients that have accumulated and leaves them as it found them; what was fed to `base` instead
    can be seen from a step hook of `base`, where under route a quarantine's gradient is the removed part, and under
    none and erase it is None (never zeros, so that every optimizer skips it). Gradients of the quarantine vectors are
    cleared as they arrive: they equal the deployed ones, and a trainer that clips by the global norm before step()
    would count them twice. Clipping there instead of by max_norm is the policy `before`.

    Outside gradient space one optimizer moves the combined point, which it finds in the deployed vector; there a
    deployed vector without a gradient has an update of zero. Training starts where the vectors are at the first step.
    A later step would overwrite what else has moved them meanwhile (an average of weights, a reload), so it is refused
    unless they hold what the last step wrote. A state that is loaded brings along what that was; whether the model or
    the optimizer is loaded first makes no difference, for the values are compared at the next step. In gradient space
    the vectors are all there is, nothing is overwritten and nothing compared.

    `state`, `param_groups` and `defaults` are base's own objects, so learning-rate schedulers, accelerate and
    transformers' Trainer work on either. Step hooks of either fire once a step; torch's global ones fire for both.

    Arguments:
        base: any optimizer that holds the deployed vectors, and under route the quarantine vectors. Other parameters
            in it are stepped as always, and count with the deployed set in global norms.
        vectors: module name → VectorPair, or a plain pair, of (r,) parameters; or an adapted model.
        basis: the hack basis; modules that it doesn't name keep all of their gradient.
        intervention, space, clip, max_norm, rule, retained: see `Routing`.

    Raises:
        SettingError, UnsupportedCombinationError: the settings mean nothing, alone or together.
        BindingError, StaleBasisError: basis and vectors don't fit.
        ArgumentTypeError: base, vectors or basis is of another type.
        FingerprintMismatchError: the weights of an adapted model have changed since it was adapted.
        VectorNotOptimizedError: base does not hold a vector.
        ClosureOptimizerError: base needs a closure.

    >>> from projected_grpo import VectorPair
    >>> pair = VectorPair(torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2)))
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
        vectors: VectorSource,
        basis: Basis,
        *,
        intervention: Intervention = "route",
        space: Space = "displacement",
        clip: ClipPolicy = "before",
        max_norm: float | None = None,
        rule: SplitRule = DEFAULT_RULE,
        retained: float = 1.0,
    ) -> None:
        super().__init__(base)
        self.routing = Routing(
            intervention=intervention, space=space, clip=clip, max_norm=max_norm, rule=rule, retained=retained
        )
        self.vectors = vectors_of(vectors)
        self._source = vectors
        self._routed = {id(vector) for pair in self.vectors.values() for vector in pair if vector is not None}
        self._layout: Layout
        self._deployed: VectorSet
        self._quarantine: VectorSet
        self._progress: Progress | None = None
        self._record: StepRecord | None = None
        self._looked_at = False
        self._interrupted = False
        self._measured = MeasureOnce()
        self.refresh(basis)
        check_base(base, self.vectors, self.routing)
        drop_on_arrival(self.vectors, self)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One routed step.

        Arguments:
            closure: evaluated once, with gradients enabled, before anything else; base steps without it.

        Returns:
            What the closure returned, or None.

        Raises:
            NonFiniteGradientError: names the first gradient with NaN or infinity, or says that their norm overflows.
            OutsideWriteError: outside gradient space; names the first vector that isn't what the last step or a
                loaded state left.
            InterruptedStepError: an earlier step failed inside base.step().

        After the first two nothing was changed, and the next step starts from the same state. Inside a block of
        `torch.autocast` it is the same step as outside, for base too; only the closure is evaluated as the block says.

        Whatever base.step() raises passes through. All vectors and gradients are then what they were, but the state of
        base and the parameters that are not routed are wherever base had got to, for copying them at every step could
        double the memory. So the optimizer refuses to step on, or to be saved, until a state has been loaded; load the
        vectors and the parameters that are not routed with it.
        """
        self._check_whole()
        kernels.chosen()  # a word that it does not know would be refused in the middle of the step
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with in_own_dtypes():
            found = find(self.vectors, self.base, self._routed)
            if not found.g:  # perhaps because something has replaced the Parameter objects since
                check_base(self.base, self.vectors, self.routing)
            progress = self._progress or at_the_start(self.vectors, self._layout, self.routing)
            g = self._layout.stack(found.g)
            before, changed = self._vectors_now(progress)
            norm, size = self._norm(g, found, progress, changed)
            fed, norm_fed = self._fed(g, norm, size, found, progress)
            splits_g = self.routing.intervention != "none" and not self.routing.moves_the_point
            covered = len(self._split.V)
            # Copies, for base may write into its own.
            seen = [stack.clone() for stack in fed.deployed[:covered]] if splits_g else []
            with self._vectors_kept_on_failure(*before), lent(found.loans(fed, self._layout)):
                # Whoever has looked at the last step will look at this one.
                self._progress, looks = self._stepped(progress, fed, g if self._looked_at else [])
            self._looked_at = False
            # Under route the point is the sum of both vectors, which is no windup.
            hidden = self._progress.point if self.routing.intervention == "erase" else []
            self._record = StepRecord(
                self._split,
                g,
                seen,
                norm,
                norm_fed,
                frozenset(found.g),
                before[0],
                progress.start,
                hidden,
                looks,
            )
        return loss

    def _vectors_now(self, progress: Progress) -> tuple[tuple[Stacks, Stacks], bool | Bool[Tensor, ""]]:
        """The deployed and the quarantine vectors, which nothing writes over; and whether they are other than what the
        last step wrote, where that is asked.

        Raises:
            OutsideWriteError: one was cast or moved, where the next step would overwrite it.
        """
        if not self.routing.moves_the_point:
            return (self._deployed.stack(), self._quarantine.stack()), False
        try:
            changed = progress.changed(self._deployed, self._quarantine)
            quarantine = progress.quarantine or self._quarantine.stack()
        except ProjectedGRPOError:
            self._check_untouched(progress)
            raise
        return (progress.deployed, quarantine), changed

    def _check_untouched(self, progress: Progress) -> None:
        self._deployed.check_untouched(progress.deployed)
        self._quarantine.check_untouched(progress.quarantine)

    def _norm(
        self, g: Stacks, found: Found, progress: Progress, changed: bool | Bool[Tensor, ""]
    ) -> tuple[Tensor, float]:
        """The norm of everything that was found, after all that can be refused, with one synchronisation."""
        others = found.other_gradients
        norm = global_norm(g, others) if any(other.is_sparse for other in others) else plain_norm(g, others)
        unread = [changed.to(norm)] if isinstance(changed, Tensor) else []
        size, *rest = torch.stack([norm, *unread]).tolist()
        if not trusted(size):
            norm = global_norm(g, others)
            check_finite(found.g, others, norm)
            size = float(norm)
        if any(rest) or changed is True:
            self._check_untouched(progress)
        return norm, size

    def _fed(self, g: Stacks, norm: Tensor, size: float, found: Found, progress: Progress) -> tuple[Fed, Tensor]:
        """Clips, and in gradient space splits, what was found; and the norm of what comes out.

        Raises:
            NonFiniteGradientError: a part has overflowed.
        """
        others = found.other_gradients
        if self.routing.intervention == "none" or self.routing.moves_the_point:
            factor = None if self.routing.max_norm is None else clip_factor(norm, self.routing.max_norm)
            return clip_unsplit(g, others, factor), norm if factor is None else norm * factor
        fed = split_and_clip(
            g,
            others,
            norm,
            self._split,
            clip=self.routing.clip,
            max_norm=self.routing.max_norm,
            route=self.routing.intervention == "route",
            memory=progress.memory,
            seen=found.g,
        )
        norm_fed = fed.norm()
        # Neither part is longer than this; a gradient that is far enough below the largest number needs no look.
        longest = 2 * (1 + self.routing.rule.strength) * size
        if longest > min(torch.finfo(group.dtype).max for group in self._layout.groups):
            check_finite(found.g, others, norm_fed)
        return fed, norm_fed

    def _stepped(self, progress: Progress, fed: Fed, g: Stacks) -> tuple[Progress, list[Tensor | None]]:
        """Base steps once: where the vectors are, or at the point, whose parts are then written to them.

        g: see `Progress.moved`.
        """
        if not self.routing.moves_the_point:
            self.base.step()
            return replace(progress, memory=fed.memory), []
        self._deployed.write(progress.point, just_compared=True)
        self.base.step()
        return progress.moved(self._deployed, self._quarantine, self._split, self.routing, g)

    @contextmanager
    def _vectors_kept_on_failure(self, deployed: Stacks, quarantine: Stacks) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._interrupted = True
            self._deployed.write(deployed)
            self._quarantine.write(quarantine)
            raise

    def _check_whole(self) -> None:
        if self._interrupted:
            raise InterruptedStepError(
                f"An earlier step failed inside {type(self.base).__name__}.step(), so its state belongs to no step; "
                "load a checkpoint, the vectors and the optimizer's state, and go on from there."
            )

    def refresh(self, basis: Basis) -> None:
        """Replaces the basis from the next step on.

        In displacement space the next step splits everything learned so far along the new basis. In gradient and
        update space what was routed stays where it is, so the quarantine then holds parts along both; and in gradient
        space the momenta still carry what the old basis let through. The predictable gate has seen nothing of the new
        axes: all are closed at the next step.

        Raises:
            ArgumentTypeError, BindingError, StaleBasisError: the basis does not fit; the old one stays.
            FingerprintMismatchError: the weights of an adapted model have changed, which costs a pass over them.
        """
        check_fit(self.vectors, basis, fingerprints_of(self._source))
        self._use(basis)
        if self._progress is not None:
            self._progress = self._progress.forgetting()

    def _use(self, basis: Basis) -> None:
        """Puts a basis in force, and what is kept between steps into the order of its modules."""
        named = None if self._progress is None else self._progress.named(self._layout)
        self._split = GroupedSplit(basis, self.routing.rule)
        deployed = {name: pair.deployed for name, pair in self.vectors.items()}
        quarantine = {name: p for name, pair in self.vectors.items() if (p := pair.quarantine) is not None}
        self._layout = Layout(deployed, leading=self._split.layout.names)
        self._deployed = VectorSet("deployed", deployed, self._layout, self._split.V)
        self._quarantine = VectorSet("quarantine", quarantine, self._layout, self._split.V)
        self._progress = None if named is None else stacked(self._layout, named)
        self.basis = basis

    @torch.no_grad()
    @in_own_dtypes()
    def diagnostics(self) -> Diagnostics:
        """What the last step did, computed now, with one synchronisation with the device.

        To be called before anything else moves the vectors. The step after it is expected to be looked at too: where
        compiled loops move the vectors, under route they then look while they have the basis at hand, to the same bits.
        """
        if self._record is None:
            return Diagnostics()
        self._looked_at = True
        layout, written = self._layout, self._progress
        if self._record.split is not self._split:  # a refresh has come since
            layout, written = Layout(self._deployed.vectors, leading=self._record.split.layout.names), None
        deployed = written.deployed if written else ()
        quarantine = written.quarantine if written else ()
        return self._record.read(
            deployed or layout.stack(self._deployed.vectors), quarantine or layout.stack(self._quarantine.vectors)
        )

    @property
    def loops(self) -> str | None:
        """What splits in place of torch, such as "numba 0.68.1"; None if torch does: see `kernels`."""
        return self._split.loops

    def explain(self) -> str:
        """A table of what this configuration guarantees, each with its theorem or the hypothesis that is missing.

        What the base optimizer is (linear, coupled, …) is measured on small probe vectors, once.
        """
        measured = self._measured.of(self.base, self._routed)
        return explanation(self.routing, measured, equal_hyperparameters=self._equal_hyperparameters())

    def guarantees(self) -> dict[Guarantee, Claim]:
        """What `explain` prints, as data: guarantee → whether it holds, and why or why not."""
        measured = self._measured.of(self.base, self._routed)
        return claims_of(self.routing, measured, equal_hyperparameters=self._equal_hyperparameters())

    def _equal_hyperparameters(self) -> bool:
        """Whether both vectors of every pair are stepped with the same options."""
        group_of = {id(p): group for group in self.param_groups for p in group["params"]}
        pairs = [pair for pair in self.vectors.values() if id(pair.quarantine) in group_of]
        groups = [(group_of[id(pair.deployed)], group_of[id(pair.quarantine)]) for pair in pairs]
        return all(a is b or _options(a) == _options(b) for a, b in groups)

    def state_dict(self) -> dict[str, Any]:
        """The state of `base`, and under "routing" all else that a bitwise resumption needs; the vectors are the
        model's to save.

        Raises:
            InterruptedStepError: an earlier step failed inside base.step().
        """
        self._check_whole()
        for before in self._optimizer_state_dict_pre_hooks.values():
            before(self)
        state = self.base.state_dict()
        named = None if self._progress is None else self._progress.named(self._layout)
        state[checkpoint.KEY] = checkpoint.packed(self.routing, self.vectors, self.base, self.basis, named)
        for after in self._optimizer_state_dict_post_hooks.values():
            state = after(self, state) or state
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned, basis included; load the vectors that belong to it before or after.

        Raises:
            StateMismatchError: something is missing, or the state belongs to other settings, names, shapes or another
                order of parameters; nothing was changed. Parameters that are not routed are told apart by shape alone.
            FingerprintMismatchError: the weights of an adapted model have changed; nothing was changed.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, state_dict) or state_dict
        fingerprints = fingerprints_of(self._source)
        basis, named = checkpoint.unpacked(state_dict, self.routing, self.vectors, self.base, fingerprints)
        self.base.load_state_dict({key: value for key, value in state_dict.items() if key != checkpoint.KEY})
        self._use(basis)
        self._progress = None if named is None else stacked(self._layout, named)
        self._record, self._looked_at, self._interrupted = None, False, False
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __repr__(self) -> str:
        return f"RoutedOptimizer({self.routing}; {len(self.vectors)} modules; {self.basis!r}; base {self.base!r})"


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: repr(value) for key, value in group.items() if key != "params"}
