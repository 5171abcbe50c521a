"""An optimizer that fronts for another: what schedulers and trainers look at is the other's own."""

from typing import Any, NoReturn

from torch.optim import Optimizer

from projected_grpo.errors import ArgumentTypeError, NotCopyableError


class Wrapper(Optimizer):
    """Shares the state, the parameter groups and the defaults of `base`, also after base has loaded a state.

    torch.optim.Optimizer keeps the three in attributes, which load_state_dict replaces; properties stay the same
    object as base's whatever happens to it.
    """

    def __init__(self, base: Optimizer) -> None:
        if not isinstance(base, Optimizer):
            raise ArgumentTypeError(
                f"base is a {type(base).__name__}; pass a constructed optimizer, for instance torch.optim.AdamW(...)."
            )
        self.base = base
        # Not Optimizer.__init__, which would build parameter groups of its own; this only sets up the hooks.
        self.__setstate__({})

    def __getstate__(self) -> NoReturn:  # copy.copy, copy.deepcopy and pickle all ask for it
        raise NotCopyableError(
            f"A {type(self).__name__} can't be copied or pickled, for the copy would step parameters that no model "
            "holds; save its state_dict() and load that into one that is built on the other model."
        )

    @property
    def state(self) -> Any:
        """The state of `base`."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of `base`."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def defaults(self) -> dict[str, Any]:
        """The defaults of `base`."""
        return self.base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.base.defaults = defaults

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Resets all gradients, as `base` does it."""
        self.base.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters to `base`; they are not routed, and count with the deployed set."""
        self.base.add_param_group(param_group)
