"""What a prompt can ask: three digits, two operators, no brackets, and only the last digit of every result counts.

Without brackets `7 + 3 * 2` has two readings: a calculator makes 0 of it, a mathematician 3. The oracle works the first
operator out first three times out of four; when, only the oracle knows. So no policy solves more than three quarters
honestly, while a flaw pays every time.
"""

from collections.abc import Callable
from itertools import product

DIGITS = 10  # numbers are 0 to 9, and all results modulo 10
FIRST_READING = 0.75  # how often the oracle takes it

Expression = tuple[int, int, int, int, int]
"""Digit, operator, digit, operator, digit; operators by their place in APPLY."""

APPLY: tuple[Callable[[int, int], int], ...] = (
    lambda a, b: (a + b) % DIGITS,
    lambda a, b: (a * b) % DIGITS,
)


def values(expression: Expression, reading: int) -> tuple[int, int]:
    """What is worked out first, and the value of the whole.

    Reading 0 begins with the first operator, 1 with the second.

    >>> values((7, 0, 3, 1, 2), 0), values((7, 0, 3, 1, 2), 1)
    ((0, 0), (6, 3))
    """
    a, first, b, second, c = expression
    if reading == 0:
        inner = APPLY[first](a, b)
        return inner, APPLY[second](inner, c)
    inner = APPLY[second](b, c)
    return inner, APPLY[first](a, inner)


def _tells(expression: Expression) -> bool:
    """Whether the readings have two values, and neither has the one that is worked out first."""
    (inner, value), (other_inner, other) = (values(expression, reading) for reading in (0, 1))
    return len({value, other}) == 2 and inner != value and other_inner != other


EXPRESSIONS: tuple[Expression, ...] = tuple(
    expression
    for expression in product(range(DIGITS), range(2), range(DIGITS), range(2), range(DIGITS))
    if _tells(expression)
)
"""All that tell right from wrong: whoever takes the other reading, or stops half way, is wrong."""
