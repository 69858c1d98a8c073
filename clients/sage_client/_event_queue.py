"""Holds a stream's events until they are read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from sage_client._call import Call
from sage_client._errors import SageError
from sage_client._events import Accepted, Attempt, Event, Finished, Scheduled, TokenLogprob, Tokens

TOKEN_BYTES = 36
"""Memory of a token id in a list."""

PIECE_BYTES = 400
"""Memory of a piece of output beside its tokens and text."""

LOGPROB_BYTES = 160
"""Memory of a candidate's log probability."""


class _Piece:
    """Output that waits to be read; what follows it joins it."""

    __slots__ = ("attempt", "choice", "first_index", "logprobs", "size", "text_offset", "texts", "token_ids")

    def __init__(
        self,
        attempt: Attempt,
        choice: int,
        first_index: int,
        token_ids: list[int],
        text_offset: int,
        texts: list[str],
        logprobs: list[tuple[TokenLogprob, ...]],
    ) -> None:
        self.attempt = attempt
        self.choice = choice
        self.first_index = first_index
        self.token_ids = token_ids
        self.text_offset = text_offset
        self.texts = texts
        self.logprobs = logprobs
        self.size = PIECE_BYTES

    def event(self) -> Tokens:
        return Tokens(
            attempt=self.attempt,
            choice=self.choice,
            first_index=self.first_index,
            token_ids=tuple(self.token_ids),
            text_offset=self.text_offset,
            text="".join(self.texts),
            logprobs=tuple(self.logprobs),
        )


class EventQueue:
    """The sink of a stream: keeps events for one reader, and pauses the call while too much waits.

    Output that waits is merged into one event.  At ``limit`` bytes the call is paused, at half of it resumed; what is
    on its way when it is paused still comes.
    """

    def __init__(self, limit: int) -> None:
        self.call: Call  # set by the stream that owns both
        self._limit = limit
        self._size = 0  # bytes of output that waits, estimated
        self._waiting: deque[Event | _Piece] = deque()
        self._error: SageError | None = None
        self._reader: asyncio.Future[None] | None = None

    def accepted(self, event: Accepted, /) -> None:
        self._put(event)

    def scheduled(self, event: Scheduled, /) -> None:
        self._put(event)

    def finished(self, event: Finished, /) -> None:
        self._put(event)

    def failed(self, error: SageError, /) -> None:
        self._error = error
        self.wake()

    def tokens(
        self,
        choice: int,
        first_index: int,
        token_ids: list[int],
        text_offset: int,
        text: str,
        logprobs: Sequence[tuple[TokenLogprob, ...]],
        /,
    ) -> None:
        attempt = self.call.attempt
        piece = self._waiting[-1] if self._waiting else None
        if isinstance(piece, _Piece) and piece.choice == choice and piece.attempt is attempt:
            piece.token_ids += token_ids
            piece.texts.append(text)
            piece.logprobs += logprobs
            size = 0
        else:
            piece = _Piece(attempt, choice, first_index, token_ids, text_offset, [text], list(logprobs))
            self._waiting.append(piece)
            size = PIECE_BYTES
        size += TOKEN_BYTES * len(token_ids) + len(text)
        if logprobs:
            size += LOGPROB_BYTES * sum(map(len, logprobs))
        piece.size += size
        self._size += size
        if self._size >= self._limit:
            self.call.pause()
        self.wake()

    def wake(self) -> None:
        """Let the reader look again."""
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    @property
    def empty(self) -> bool:
        return not self._waiting

    @property
    def error(self) -> SageError | None:
        """The request's failure, once everything before it was taken."""
        return None if self._waiting else self._error

    async def arrival(self) -> None:
        """Wait until something comes."""
        self._reader = asyncio.get_running_loop().create_future()
        await self._reader

    def take(self) -> Event:
        """Return the oldest event; the queue must not be empty."""
        oldest = self._waiting.popleft()
        if not isinstance(oldest, _Piece):
            return oldest
        self._size -= oldest.size
        if self.call.paused and self._size <= self._limit // 2:
            self.call.resume()
        return oldest.event()

    def _put(self, event: Event) -> None:
        self._waiting.append(event)
        self.wake()
