"""The texts of tokens that have the same text whatever stands before them, so that they need no decoding in context."""

from __future__ import annotations

from collections.abc import Container

from tokenizers import Tokenizer, decoders

REPLACEMENT = "\ufffd"


class WholeTokens(dict[int, str]):
    """Texts by token id: whole characters by themselves.  "" for every other token: it is decoded in context.

    A byte-level decoder joins the bytes of all tokens, so a token that consists of whole characters gives these and
    nothing else.  Filled as tokens are asked for; at most one entry for each token of the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, skipped: Container[int] = ()) -> None:
        """``skipped``: special tokens, which give no text."""
        super().__init__()
        self._tokenizer = tokenizer
        self._skipped = skipped

    @classmethod
    def of(cls, tokenizer: Tokenizer, skipped: Container[int] = ()) -> WholeTokens | None:
        """Return the texts of ``tokenizer``'s tokens; None if its decoder is no byte-level one."""
        return cls(tokenizer, skipped) if isinstance(tokenizer.decoder, decoders.ByteLevel) else None

    def __missing__(self, token_id: int) -> str:
        """Decode a token that was not asked for before."""
        text = "" if token_id in self._skipped else self._decoded(token_id)
        self[token_id] = text
        return text

    def _decoded(self, token_id: int) -> str:
        text: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return "" if REPLACEMENT in text else text
