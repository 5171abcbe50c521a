"""Foreign code, and what it may raise."""

from collections.abc import Iterator
from contextlib import contextmanager


class ForeignExitError(Exception):
    """A foreign optimizer wanted to end the process, or to skip a test; neither may pass for a measurement."""


@contextmanager
def foreign() -> Iterator[None]:
    """Inside the block SystemExit and its like become an Exception; an interruption by the user stays what it is."""
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise ForeignExitError(raised(error)) from error


def raised(error: BaseException) -> str:
    """An exception in a line."""
    try:
        words = " ".join(str(error).split())
    except Exception:  # its own text may fail too
        words = ""
    if isinstance(error, ForeignExitError):
        return words
    return f"{type(error).__name__}: {words or 'without a word'}"[:300]
