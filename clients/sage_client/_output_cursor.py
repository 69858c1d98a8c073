"""Tracks a stream's position in the output: drops repeated tokens and detects missing ones."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sage_client._errors import ProtocolError
from sage_client._events import Tokens


@dataclass(slots=True)
class OutputCursor:
    """The position after the delivered output of one choice."""

    next_index: int = 0  # output position of the next token
    next_offset: int | None = 0  # position of the next text, in code points; None until known

    def advance(self, tokens: Tokens) -> Tokens | None:
        """Return the new part of ``tokens`` and move behind it; None if nothing is new.

        Raises:
            ProtocolError: tokens or text between the last event and this one are missing.
        """
        known = self.next_index - tokens.first_index
        if known < 0:
            raise ProtocolError(f"output tokens {self.next_index} to {tokens.first_index - 1} are missing")
        ids = tokens.token_ids[known:]
        text, offset = self._new_text(tokens)
        self.next_index += len(ids)
        self.next_offset = offset + len(text)
        if not ids and not text:
            return None
        if len(ids) == len(tokens.token_ids) and len(text) == len(tokens.text):
            return tokens
        return replace(
            tokens,
            first_index=self.next_index - len(ids),
            token_ids=ids,
            text=text,
            text_offset=offset,
            logprobs=tokens.logprobs[known:],
        )

    def _new_text(self, tokens: Tokens) -> tuple[str, int]:
        """Return the new text and its position."""
        if self.next_offset is None:
            return tokens.text, tokens.text_offset
        if not tokens.text:
            return "", self.next_offset
        known = self.next_offset - tokens.text_offset
        if known < 0:
            raise ProtocolError(f"output text {self.next_offset} to {tokens.text_offset - 1} is missing")
        return tokens.text[known:], self.next_offset
