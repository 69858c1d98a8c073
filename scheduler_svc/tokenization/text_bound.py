"""What one token can stand for at most, so that a text that cannot fit is refused before it is tokenized.

Tokenizing 8 MB takes seconds of a thread and two gigabytes of memory.
"""

from __future__ import annotations

import re

from tokenizers import Tokenizer

_NORMALIZERS = re.compile(r"[A-Z]\w*(?=\()")
_KEEPING = frozenset({"Sequence", "Prepend", "Replace", "NFC", "String"})
_SPACE_MARK = 'content="\N{LOWER ONE EIGHTH BLOCK}"'
_SPACES = str.maketrans({"\N{LOWER ONE EIGHTH BLOCK}": " ", "\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}": " "})
_SLICE = 1 << 16  # characters that are looked at without letting other threads go on
_COMPOSED = 3  # NFC makes at most three times as few bytes: three letters of Hangul become one syllable


def bytes_per_token(tokenizer: Tokenizer) -> int | None:
    """Return the most bytes of UTF-8 that one token of the vocabulary stands for; None if there is no bound.

    There is none where a text may lose characters, or an unknown run of any length becomes one token.
    """
    normalizer = repr(tokenizer.normalizer) if tokenizer.normalizer is not None else ""
    kinds = set(_NORMALIZERS.findall(normalizer))
    if not kinds <= _KEEPING or normalizer.count("Replace(") != normalizer.count(_SPACE_MARK):
        return None
    added = tokenizer.get_added_tokens_decoder().values()
    if any(each.lstrip or each.rstrip for each in added):
        return None  # such a token takes the spaces beside it along, however many
    if "ByteLevel" in repr(tokenizer.pre_tokenizer):
        longest = max((len(text) for text in _vocabulary(tokenizer)), default=0)
        longest = max(longest, *(len(each.content.encode()) for each in added), 0)
    elif getattr(tokenizer.model, "byte_fallback", False):
        longest = max((len(text.encode(errors="replace")) for text in _vocabulary(tokenizer)), default=0)
    else:
        return None
    return longest * (_COMPOSED if "NFC" in kinds else 1) or None


def one_word_per_token(tokenizer: Tokenizer) -> bool:
    """Return whether no token of the vocabulary reaches over a space from one word into another.

    Then a text has at least as many tokens as words, if ``bytes_per_token`` has a bound: no part of it gets lost.
    """
    added = (each.content for each in tokenizer.get_added_tokens_decoder().values())
    return all(_words(text.translate(_SPACES)) <= 1 for text in (*_vocabulary(tokenizer), *added))


def least_words(text: str, enough: int) -> int:
    """Count the words of a text, which are set apart by spaces; stop soon after ``enough``."""
    count = 0
    for start in range(0, len(text), _SLICE):
        count += _words(text[start : start + _SLICE])
        if start and text[start] != " " and text[start - 1] != " ":
            count -= 1  # cut in two
        if count > enough:
            break
    return count


def _words(text: str) -> int:
    return len(list(filter(None, text.split(" "))))


def _vocabulary(tokenizer: Tokenizer) -> list[str]:
    """Return the texts of all tokens, one call each: the whole vocabulary in one call would hold up other threads."""
    found = (tokenizer.id_to_token(number) for number in range(tokenizer.get_vocab_size(with_added_tokens=True)))
    return [text for text in found if text is not None]
