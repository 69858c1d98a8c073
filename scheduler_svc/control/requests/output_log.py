"""A request's output so far: the one buffer between its attempts and however many clients read it.

A client holds only a position in the log.  So a slow client costs no memory, the tokens that it has not read coalesce
by themselves, and a client that attaches again reads on from its position.  The log is bounded by the request's
max_tokens: an attempt that sends more cannot be trusted.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from sys import getsizeof
from typing import NamedTuple

from scheduler_svc.control.journal.detached import OutputPiece

TOKEN_BYTES = 8
"""Bytes of memory per token in the log, without its text and log probabilities."""

LOGPROB_BYTES = 41
"""Bytes of memory per token with log probabilities, besides the encoded message."""

CHUNK_TOKENS = 64
"""Texts of this many tokens, those that readers want next, are kept one by one; then they become one text."""


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
        "_attempt",
        "_chunk_offsets",
        "_chunks",
        "_ends",
        "_limit",
        "_logprob_bytes",
        "_logprobs",
        "_recent",
        "_recent_from",
        "_segments",
        "_tail",
        "_text_bytes",
        "_text_length",
        "token_ids",
    )

    def __init__(self, *, limit: int) -> None:
        self.token_ids = array("I")
        self._limit = limit  # tokens
        self._chunks: list[str] = []  # text of CHUNK_TOKENS tokens or more each
        self._chunk_offsets: list[int] = []  # of each chunk in the whole text
        self._recent: list[str] = []  # text that became certain with each token from _recent_from on
        self._recent_from = 0
        self._ends = array("I")  # text length after each token
        self._text_length = 0
        self._text_bytes = 0  # memory of the chunks
        self._segments: list[tuple[int, int]] = []  # (first position, attempt number), ascending
        self._attempt = 0  # number of the last segment's
        self._logprobs: list[bytes] | None = None
        self._logprob_bytes = 0
        self._tail = ""  # text held back until the end

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def size_bytes(self) -> int:
        """The memory that the log takes, about."""
        logprobs = 0 if self._logprobs is None else LOGPROB_BYTES * len(self._logprobs) + self._logprob_bytes
        text = self._text_bytes + sum(map(getsizeof, self._recent)) + getsizeof(self._tail)
        return TOKEN_BYTES * len(self.token_ids) + text + logprobs

    @property
    def text_length(self) -> int:
        """The length of the text in Unicode code points, the tail included."""
        return self._text_length + len(self._tail)

    @property
    def text(self) -> str:
        """The whole text, the tail included."""
        return "".join((*self._chunks, *self._recent, self._tail))

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
        if attempt != self._attempt or not have:
            self._segments.append((have, attempt))
            self._attempt = attempt
        if logprobs or self._logprobs is not None:
            self._keep_logprobs(have, logprobs or [b""] * count)
        self.token_ids.extend(token_ids)
        if count > 1:
            # Text that comes with several tokens belongs to the last of them; the others carry none.
            self._recent.extend([""] * (count - 1))
            self._ends.extend([self._text_length] * (count - 1))
        self._text_length += len(text)
        self._recent.append(text)
        self._ends.append(self._text_length)
        if len(self._recent) >= CHUNK_TOKENS:
            self._close_chunk()
        return True

    def append_token(self, attempt: int, first_index: int, token_id: int, text: str) -> bool:
        """Append one token without log probabilities, as ``append`` does, in a third of its time."""
        token_ids = self.token_ids
        have = len(token_ids)
        usual = first_index == have and attempt == self._attempt and have < self._limit and self._logprobs is None
        if not usual or not have:
            return self.append(attempt, first_index, (token_id,), text, None)
        token_ids.append(token_id)
        self._text_length += len(text)
        self._ends.append(self._text_length)
        recent = self._recent
        recent.append(text)
        if len(recent) >= CHUNK_TOKENS:
            self._close_chunk()
        return True

    def close(self, trailing_text: str) -> None:
        """Complete the output with the text that was held back for a stop string or a character's last bytes."""
        self._tail = trailing_text
        if self._recent:
            self._close_chunk()

    def read(self, start: int, most: int | None = None) -> TokenSlice:
        """Return the output from ``start`` to the end, or to where another attempt takes over.

        ``start`` is an output position less than the length.  ``most`` bounds the tokens.
        """
        end, attempt = len(self.token_ids), self._attempt
        if start < self._segments[-1][0]:
            for position, number in reversed(self._segments):
                attempt = number
                if position <= start:
                    break
                end = position
        if most is not None:
            end = min(end, start + most)
        logprobs = None if self._logprobs is None else self._logprobs[start:end]
        text = self.text_of(start, end)
        return TokenSlice(attempt, start, self.token_ids[start:end], self.text_offset(start), text, logprobs)

    def text_of(self, start: int, end: int) -> str:
        """Return the text of the tokens from ``start`` to ``end``, of which there is one at least."""
        recent = start - self._recent_from
        if recent >= 0:
            return self._recent[recent] if end - start == 1 else "".join(self._recent[recent : end - self._recent_from])
        begin, finish = self.text_offset(start), self.text_offset(end)
        first = bisect_right(self._chunk_offsets, begin) - 1
        after = bisect_left(self._chunk_offsets, finish, first + 1)
        parts = self._chunks[first:after]
        if after == len(self._chunks):
            parts += self._recent
        begins_at = self._chunk_offsets[first]
        return "".join(parts)[begin - begins_at : finish - begins_at]

    def text_offset(self, position: int) -> int:
        """Return the length of the text before an output position, in Unicode code points."""
        return self._ends[position - 1] if position else 0

    def piece(self, start: int, end: int) -> OutputPiece:
        """Return the tokens from ``start`` to ``end``, of which there is one at least, with the text of each."""
        before, ends = self.text_offset(start), self._ends[start:end]
        return OutputPiece(
            first_index=start,
            token_ids=self.token_ids[start:end],
            text_lengths=[after - earlier for earlier, after in zip((before, *ends), ends, strict=False)],
            text=self.text_of(start, end),
            logprobs=None if self._logprobs is None else self._logprobs[start:end],
        )

    def restore(self, attempt: int, piece: OutputPiece) -> None:
        """Append a piece of another log as the output of an attempt.  Raises OutputGap, as ``append`` does."""
        offset, logprobs = 0, piece.logprobs
        for index, (token_id, length) in enumerate(zip(piece.token_ids, piece.text_lengths, strict=True)):
            text = piece.text[offset : offset + length]
            found = None if logprobs is None else [logprobs[index]]
            self.append(attempt, piece.first_index + index, (token_id,), text, found)
            offset += length

    def lacks_logprobs(self, start: int) -> bool:
        """Return whether a token from ``start`` on has no log probabilities although others have them."""
        return self._logprobs is not None and not all(self._logprobs[start:])

    def _close_chunk(self) -> None:
        self._chunk_offsets.append(self.text_offset(self._recent_from))
        chunk = "".join(self._recent)
        self._chunks.append(chunk)
        self._text_bytes += getsizeof(chunk)
        self._recent.clear()
        self._recent_from = len(self.token_ids)

    def _keep_logprobs(self, have: int, logprobs: Sequence[bytes]) -> None:
        if self._logprobs is None:
            self._logprobs = [b""] * have
        self._logprobs.extend(logprobs)
        self._logprob_bytes += sum(map(len, logprobs))
