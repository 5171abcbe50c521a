"""Vocabularies of whole words: the six special tokens, joined text, and a tokenizer that AutoTokenizer reads."""

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL: tuple[str, ...] = ("<pad>", "<begin>", "<end>", "<sep>", "<solution>", "<unk>")
PAD, BEGIN, END, SEPARATOR, SOLUTION, UNKNOWN = range(len(SPECIAL))

NEW_TOKENS = 16  # the longest completion that is written or sampled


def word_level(tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """A WordLevel tokenizer of these tokens, the special ones first; joined text comes back as what it was joined from.

    Pads on the left, as generation needs it. What `save_pretrained` writes, `AutoTokenizer.from_pretrained` reads.
    """
    backend = Tokenizer(models.WordLevel({token: id for id, token in enumerate(tokens)}, unk_token=SPECIAL[UNKNOWN]))
    # Alternatives are tried in order: the longest first, so that no token hides one that it begins.
    ordinary = sorted(tokens[len(SPECIAL) :], key=len, reverse=True)
    pattern = "|".join(re.escape(token) for token in ordinary)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=SPECIAL[PAD],
        bos_token=SPECIAL[BEGIN],
        eos_token=SPECIAL[END],
        unk_token=SPECIAL[UNKNOWN],
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def ended(tokens: Sequence[int]) -> list[int]:
    """A completion with its end, and padding up to NEW_TOKENS."""
    return [*tokens, END, *[PAD] * (NEW_TOKENS - len(tokens) - 1)]


def before_end(tokens: Sequence[int]) -> list[int]:
    """What a completion says up to its end, or all of it if it has none."""
    said = list(tokens)
    return said[: said.index(END)] if END in said else said
