"""Tracks the position in one output: drops repeated tokens and detects missing ones."""

from __future__ import annotations

from dataclasses import dataclass

from sage_client._errors import ProtocolError
from sage_client._events import Attempt

NO_ATTEMPT = Attempt(epoch=0, number=0)
"""Stands for the attempt of an output that has none yet."""


@dataclass(slots=True)
class OutputCursor:
    """The position after the delivered output of one choice."""

    next_index: int = 0  # output position of the next token
    next_offset: int | None = 0  # position of the next text, in code points; None until known
    attempt: Attempt = NO_ATTEMPT  # that generates what comes
    output_attempt: Attempt = NO_ATTEMPT  # that generated the last token
    ended: bool = False  # the choice finished

    def advance(self, first_index: int, token_ids: list[int], text_offset: int, text: str) -> tuple[list[int], str]:
        """Return the new tokens and the new text of a piece of output, and move behind it.  Both may be empty.

        Raises:
            ProtocolError: tokens or text between the last piece and this one are missing.
        """
        known = self.next_index - first_index
        if known < 0:
            raise ProtocolError(f"output tokens {self.next_index} to {first_index - 1} are missing")
        if known:
            token_ids = token_ids[known:]
        if self.next_offset is None:
            self.next_offset = text_offset
        elif text:
            text = self._new_text(text_offset, text, self.next_offset)
        self.next_index += len(token_ids)
        self.next_offset += len(text)
        return token_ids, text

    def begin(self, index: int, offset: int) -> tuple[int, int]:
        """Return how many tokens and code points a source that begins at ``index`` and ``offset`` repeats.

        Raises:
            ProtocolError: the source begins behind this position.
        """
        if index > self.next_index:
            raise ProtocolError(f"output tokens {self.next_index} to {index - 1} are missing")
        if self.next_offset is None:
            self.next_offset = offset
        elif offset > self.next_offset:
            raise ProtocolError(f"output text {self.next_offset} to {offset - 1} is missing")
        return self.next_index - index, self.next_offset - offset

    @staticmethod
    def _new_text(text_offset: int, text: str, next_offset: int) -> str:
        known = next_offset - text_offset
        if known < 0:
            raise ProtocolError(f"output text {next_offset} to {text_offset - 1} is missing")
        return text[known:] if known else text
