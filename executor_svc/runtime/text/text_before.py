"""The end of a prompt, which the first tokens of the output are decoded after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
CONTEXT_TOKENS = (8, 32, 128)  # lengths of the prompt's end that are tried, the shortest first
CHARACTER_BYTES = 4  # of the longest characters: a context may have to begin so many tokens later, or it splits one
UNFINISHED_LIMIT = 8  # tokens at the end of a prompt that may begin a character
STRAY_LIMIT = 512  # tokens without a character at the end of a prompt, beyond which there is no context


@dataclass(slots=True, kw_only=True)
class TextBefore:
    """The tokens before an output."""

    context: list[int] = field(default_factory=list)  # their text is whole: it ends with a character
    unfinished: list[int] = field(default_factory=list)  # tokens after the context that may begin a character
    begun: str = ""  # the text of ``unfinished`` by itself

    @classmethod
    def of(cls, prompt: Sequence[int], tokenizer: Tokenizer, *, skip_special_tokens: bool) -> Self:
        """Return what is before the output of ``prompt``: a short end of it that decodes like the whole.

        A long run of bytes that are no character is left out: the output does not finish them.
        """
        end = _End(tokenizer, skip_special_tokens)
        for count in range(min(UNFINISHED_LIMIT, len(prompt)) + 1):
            context = end.context(prompt, len(prompt) - count)
            if context is not None:
                unfinished = list(prompt[len(prompt) - count :])
                return cls(context=context, unfinished=unfinished, begun=end.text(unfinished) if unfinished else "")
        return cls(context=end.context(prompt, end.before_strays(prompt)) or [])


class _End:
    """Looks for where a prompt's text is whole."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens

    def text(self, token_ids: Sequence[int]) -> str:
        found: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=self._skip_special_tokens)
        return found

    def context(self, prompt: Sequence[int], end: int) -> list[int] | None:
        """Return tokens of ``prompt`` up to ``end``; None if their text does not end with a character.

        A run of bytes is one text to many decoders, so one that begins inside a character has no character at all.
        """
        found: list[int] | None = None
        for length in CONTEXT_TOKENS:
            for later in range(CHARACTER_BYTES):
                context = list(prompt[max(0, end - length + later) : end])
                text = self.text(context)
                if text and not text.endswith(REPLACEMENT):
                    return context
                if not text:
                    found = context  # only special tokens, as far as is known
                if length >= end:
                    break
        return found

    def before_strays(self, prompt: Sequence[int]) -> int:
        """Return where the tokens begin that are no character, at the end of ``prompt``."""
        end = len(prompt)
        while end > max(0, len(prompt) - STRAY_LIMIT) and self.text(prompt[end - 1 : end]).endswith(REPLACEMENT):
            end -= 1
        return end
