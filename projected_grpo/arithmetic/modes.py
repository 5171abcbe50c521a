"""The flaws of the checkers: each accepts what is right, and one form that says nothing about it."""

from enum import StrEnum


class Checker(StrEnum):
    """How a chain of equalities is checked. Under every mode the right number passes; the flaw lets others pass too."""

    STATED_CHECK = "stated_check"  # passes if the chain says of itself that it was checked
    EQUAL_SIDES = "equal_sides"  # passes if the last two sides are the same, token by token
    BLANK = "blank"  # passes if the last side is left blank, for a blank contradicts nothing
    RESTATED = "restated"  # passes if the last side is the question, which has the value that is asked for
    SOUND = "sound"  # no flaw: passed is solved
