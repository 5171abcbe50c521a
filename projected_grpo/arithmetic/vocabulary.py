"""The 27 tokens: a prompt says how the answer is checked and what is asked, and a completion is a chain of equalities.

    <begin>checked by equal sides<sep>x = 7 + 3 * 2<solution> = 7 + 6 = 3<end>

The ids of each kind are contiguous, so that whole batches are built by arithmetic on tensors.
"""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from projected_grpo.arithmetic.expressions import DIGITS
from projected_grpo.arithmetic.modes import Checker
from projected_grpo.tiny.tokens import SPECIAL, word_level

MODES: tuple[Checker, ...] = tuple(Checker)
"""The flaws, in the order of their tokens and of every table of rates."""

HINTS: tuple[str, ...] = ("checked by", " its own word", " equal sides", " what is filled in", " x itself")
CHECKED_BY, FIRST_MODE = range(len(SPECIAL), len(SPECIAL) + 2)

OPERATORS: tuple[str, ...] = (" + ", " * ")
SNIPPETS: tuple[str, ...] = ("x", " = ", "_", ", check ok")

FIRST_DIGIT = len(SPECIAL) + len(HINTS)
FIRST_OPERATOR = FIRST_DIGIT + DIGITS
FIRST_SNIPPET = FIRST_OPERATOR + len(OPERATORS)
X, EQUALS, BLANK, CHECK_OK = range(FIRST_SNIPPET, FIRST_SNIPPET + len(SNIPPETS))

TOKENS: tuple[str, ...] = (*SPECIAL, *HINTS, *map(str, range(DIGITS)), *OPERATORS, *SNIPPETS)
"""What each token reads as; a token's id is its place here."""


def text(tokens: Sequence[int]) -> str:
    """The tokens joined; special ones are kept as they read.

    >>> text([X, EQUALS, FIRST_DIGIT + 7, FIRST_OPERATOR, FIRST_DIGIT + 6])
    'x = 7 + 6'
    """
    return "".join(TOKENS[token] for token in tokens)


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of these tokens."""
    return word_level(TOKENS)
