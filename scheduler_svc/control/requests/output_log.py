"""A request's output so far: the one buffer between its attempts and however many clients read it.

A client holds only a position in the log.  So a slow client costs no memory, the tokens that it has not read coalesce
by themselves, and a client that attaches again reads on from its position.  The log is bounded by the request's
max_tokens: an attempt that sends more cannot be trusted.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from sys import getsizeof
from typing import NamedTuple

TOKEN_BYTES = 16
"""Bytes of memory per token in the log, without its text and log probabilities."""

LOGPROB_BYTES = 41
"""Bytes of memory per token with log probabilities, besides the encoded message."""


class TokenSlice(NamedTuple):
    """Consecutive output tokens of one attempt.  A tuple: one is made per token and reader."""

    attempt_number: int
    first_index: int  # output position of token_ids[0]
    token_ids: Sequence[int]
    text_offset: int  # of text in the whole output, Unicode code points
    text: str
    logprobs: Sequence[bytes] | None  # one encoded message per token, b"" without one; None if not requested


class OutputGap(Exception):
    """New output does not continue the log: the attempt that sent it cannot be trusted."""


class OutputLog:
    """The output tokens of one request with their text and log probabilities."""

    __slots__ = (
        "_ends",
        "_limit",
        "_logprob_bytes",
        "_logprobs",
        "_pieces",
        "_segments",
        "_tail",
        "_text_bytes",
        "_text_length",
        "token_ids",
    )

    def __init__(self, *, limit: int) -> None:
        self.token_ids = array("I")
        self._limit = limit  # tokens
        self._pieces: list[str] = []  # text that became certain with each token
        self._ends = array("I")  # text length after each token
        self._text_length = 0
        self._text_bytes = 0  # memory of the pieces
        self._segments: list[tuple[int, int]] = []  # (first position, attempt number), ascending
        self._logprobs: list[bytes] | None = None
        self._logprob_bytes = 0
        self._tail = ""  # text held back until the end

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def size_bytes(self) -> int:
        """The memory that the log takes, about."""
        logprobs = 0 if self._logprobs is None else LOGPROB_BYTES * len(self._logprobs) + self._logprob_bytes
        return TOKEN_BYTES * len(self.token_ids) + self._text_bytes + getsizeof(self._tail) + logprobs

    @property
    def text_length(self) -> int:
        """The length of the text in Unicode code points, the tail included."""
        return self._text_length + len(self._tail)

    @property
    def text(self) -> str:
        """The whole text, the tail included."""
        return "".join(self._pieces) + self._tail

    @property
    def tail(self) -> str:
        """The text that was held back until the end."""
        return self._tail

    def append(
        self,
        attempt: int,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
    ) -> bool:
        """Append tokens; return False if all of them were there already (sent again after a reconnect).

        Raises OutputGap if positions are missing, if only a part overlaps (its text cannot be cut), if there are more
        tokens than the limit, and if text or log probabilities do not belong to the tokens.
        """
        have, count = len(self.token_ids), len(token_ids)
        if first_index != have:
            if first_index + count <= have:
                return False
            raise OutputGap(f"output is at {have}, attempt {attempt} sent {count} tokens from {first_index}")
        if not count:
            if text:
                raise OutputGap(f"attempt {attempt} sent text without a token")
            return False
        if have + count > self._limit:
            raise OutputGap(f"attempt {attempt} sent {count} tokens from {have}, past the limit of {self._limit}")
        if logprobs and len(logprobs) != count:
            raise OutputGap(f"attempt {attempt} sent {count} tokens with {len(logprobs)} log probabilities")
        if not self._segments or self._segments[-1][1] != attempt:
            self._segments.append((have, attempt))
        self.token_ids.extend(token_ids)
        if count > 1:
            # Text that comes with several tokens belongs to the last of them; the others carry none.
            self._pieces.extend([""] * (count - 1))
            self._ends.extend([self._text_length] * (count - 1))
        self._text_length += len(text)
        self._text_bytes += getsizeof(text)
        self._pieces.append(text)
        self._ends.append(self._text_length)
        if logprobs or self._logprobs is not None:
            self._keep_logprobs(have, logprobs or [b""] * count)
        return True

    def close(self, trailing_text: str) -> None:
        """Complete the output with the text that was held back for a stop string or a character's last bytes."""
        self._tail = trailing_text

    def read(self, start: int) -> TokenSlice:
        """Return the output from ``start`` to the end, or to where another attempt takes over.

        ``start`` is an output position less than the length.
        """
        end, attempt = len(self.token_ids), 0
        for position, number in reversed(self._segments):
            if position <= start:
                attempt = number
                break
            end = position
        if end - start == 1:
            text = self._pieces[start]
        else:
            text = "".join(self._pieces[start:end])
        logprobs = None if self._logprobs is None else self._logprobs[start:end]
        return TokenSlice(attempt, start, self.token_ids[start:end], self._offset(start), text, logprobs)

    def _offset(self, position: int) -> int:
        return self._ends[position - 1] if position else 0

    def _keep_logprobs(self, have: int, logprobs: Sequence[bytes]) -> None:
        if self._logprobs is None:
            self._logprobs = [b""] * have
        self._logprobs.extend(logprobs)
        self._logprob_bytes += sum(map(len, logprobs))
