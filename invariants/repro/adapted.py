"""Recording an adapted Linear: every output, gradient, weight and export, named by the state that it was taken in."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from invariants.contracts import AdaptedLinear
from invariants.trials import AdapterTrial, Trial


class AdapterRecording:
    """What the adapted Linears of a check put out, in their order."""

    subject, accepts_live = "", False
    playback: tuple[Any, ...] = ()

    def __init__(self, trial: AdapterTrial) -> None:
        self._trial, self._made = trial, 0
        self._outputs, self._gradients, self._weights = dict[str, Tensor](), dict[str, Tensor](), dict[str, Tensor]()
        self._exports, self._trainable = list[dict[str, Tensor]](), False
        self.trial: Trial = replace(trial, factory=self._make)

    def _make(self, weight: Tensor, bias: Tensor | None) -> AdaptedLinear:
        made = self._trial.factory(weight, bias)
        self._made += 1
        state = [f"Linear {self._made}"]
        for name, vector in (("deployed", made.deployed), ("quarantine", made.quarantine)):
            vector.register_post_accumulate_grad_hook(self._keeping(name))  # type: ignore[no-untyped-call]  # torch leaves it untyped

        def forward(x: Tensor) -> Tensor:
            out = made.forward(x)
            self._outputs[f"{len(self._outputs) + 1}: {', '.join(state)}"] = out.detach().clone()
            return out

        def shown_weight() -> Tensor:
            assert made.weight is not None
            current = made.weight()
            self._trainable |= current.requires_grad
            self._weights[f"{len(self._weights) + 1}: {', '.join(state)}"] = current.detach().clone()
            return current

        def exported() -> Mapping[str, Tensor]:
            assert made.export is not None
            tensors = made.export()
            self._exports.append({name: t.detach().clone() for name, t in tensors.items()})
            return tensors

        return replace(
            made, forward=forward, ablated=_noting(made.ablated, "ablated", state),
            as_base=_noting(made.as_base, "switched off", state), weight=shown_weight if made.weight else None,
            export=exported if made.export else None,
        )  # fmt: skip

    def _keeping(self, name: str) -> Callable[[Tensor], None]:
        def keep(vector: Tensor) -> None:
            assert isinstance(vector, nn.Parameter)
            assert vector.grad is not None
            self._gradients[f"{len(self._gradients) + 1}: {name}"] = vector.grad.detach().clone()

        return keep

    def inputs(self) -> dict[str, object]:
        """The Linear, the input, and the values that both vectors were given."""
        trial = self._trial
        deployed, quarantine = (v.to(trial.dtype) for v in (trial.case.deployed, trial.case.quarantine))
        return {"W": trial.weight, "b": trial.bias, "x": trial.x, "deployed": deployed, "quarantine": quarantine}

    def outputs(self) -> dict[str, object]:
        """Everything that was put out."""
        return {
            "outputs": self._outputs, "gradients": self._gradients, "weights": self._weights,
            "exports": self._exports, "trainable": self._trainable,
        }  # fmt: skip


def _noting(
    enter: Callable[[], AbstractContextManager[object]] | None, what: str, state: list[str]
) -> Callable[[], AbstractContextManager[object]] | None:
    @contextmanager
    def noted() -> Iterator[None]:
        assert enter is not None
        with enter():
            state.append(what)
            try:
                yield
            finally:
                state.pop()

    return noted if enter else None
