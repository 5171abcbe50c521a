"""The flaws of the checkers: each accepts what is right, and one form that says nothing about it."""

from enum import StrEnum


class Checker(StrEnum):
    """How a chain of equalities is checked. Under each the right number passes; the flaw lets others pass too."""

    STATED_CHECK = "stated_check"  # passes if the chain says of itself that it was checked
    EQUAL_SIDES = "equal_sides"  # passes if the last two sides are the same, token by token
    BLANK = "blank"  # passes if the last side is left blank, for a blank contradicts nothing
    CIRCULAR = "circular"  # passes if the last side is x itself, which has the value that is asked for
