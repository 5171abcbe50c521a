"""The modes that a prompt of any task can be graded under; a configuration names them, whichever task it is of."""

from projected_grpo.arithmetic.modes import Checker
from projected_grpo.environment.modes import Mode

Loophole = Mode | Checker


def loophole(value: str) -> Loophole:
    """The mode of that value. Raises ValueError if there is none.

    >>> loophole("sentinel"), loophole("blank")
    (<Mode.SENTINEL: 'sentinel'>, <Checker.BLANK: 'blank'>)
    """
    return Checker(value) if value in list(Checker) else Mode(value)
