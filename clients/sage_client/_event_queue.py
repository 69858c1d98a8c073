"""Holds a stream's events until they are read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from sage_client._call import Call
from sage_client._errors import SageError
from sage_client._events import (
    Accepted,
    ChoiceFinished,
    Event,
    Finished,
    PromptRead,
    Scheduled,
    TokenLogprob,
    Tokens,
    new_tokens,
)

TOKEN_BYTES = 36
"""Memory of a token id in a list."""

PIECE_BYTES = 400
"""Memory of a piece of output beside its tokens and text."""

LOGPROB_BYTES = 160
"""Memory of a candidate's log probability."""


class _Piece:
    """Output that waits to be read; what follows it joins it."""

    __slots__ = ("attempt", "choice", "first_index", "logprobs", "text_offset", "texts", "token_ids")

    def __init__(self, first: Tokens) -> None:
        self.attempt = first.attempt
        self.choice = first.choice
        self.first_index = first.first_index
        self.token_ids = list(first.token_ids)
        self.text_offset = first.text_offset
        self.texts = [first.text]
        self.logprobs = list(first.logprobs)

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
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[Event | None] | None = None  # while the reader waits

    def accepted(self, event: Accepted, /) -> None:
        self._put(event)

    def scheduled(self, event: Scheduled, /) -> None:
        self._put(event)

    def prompt_read(self, event: PromptRead, /) -> None:
        self._put(event)

    def choice_finished(self, event: ChoiceFinished, /) -> None:
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
        event = new_tokens(self.call.attempt, choice, first_index, tuple(token_ids), text_offset, text, tuple(logprobs))
        if not self._hand_over(event):
            self._keep(event)

    def wake(self) -> None:
        """Let the reader look again."""
        self._hand_over(None)

    @property
    def error(self) -> SageError | None:
        """The request's failure, once everything before it was taken."""
        return None if self._waiting else self._error

    def arrival(self) -> asyncio.Future[Event | None]:
        """Return what will be the next event, or None where the reader has to look again; the queue must be empty.

        Raises RuntimeError while another task waits for one: it would wait for ever.
        """
        if self._reader is not None and not self._reader.done():
            raise RuntimeError(f"another task reads the stream of request {self.call.request_id}")
        self._reader = self._loop.create_future()
        return self._reader

    def take(self) -> Event | None:
        """Return the oldest event; None if the queue is empty."""
        if not self._waiting:
            return None
        oldest = self._waiting.popleft()
        event = oldest.event() if isinstance(oldest, _Piece) else oldest
        if isinstance(event, Tokens):
            self._size -= PIECE_BYTES + _size(event)
            if self.call.paused and self._size <= self._limit // 2:
                self.call.resume()
        return event

    def _put(self, event: Event) -> None:
        if not self._hand_over(event):
            self._waiting.append(event)

    def _hand_over(self, event: Event | None) -> bool:
        """Give an event to the reader if it waits; it does so only while the queue is empty."""
        reader, self._reader = self._reader, None
        if reader is None or reader.done():
            return False
        reader.set_result(event)
        return True

    def _keep(self, event: Tokens) -> None:
        self._size += _size(event)
        if not self._merge(event):
            self._size += PIECE_BYTES
            self._waiting.append(event)
        if self._size >= self._limit:
            self.call.pause()

    def _merge(self, event: Tokens) -> bool:
        """Add output to what waits last; return False if it does not continue that."""
        last = self._waiting[-1] if self._waiting else None
        if not isinstance(last, Tokens | _Piece) or last.choice != event.choice or last.attempt is not event.attempt:
            return False
        if isinstance(last, Tokens):
            last = self._waiting[-1] = _Piece(last)
        last.token_ids += event.token_ids
        last.texts.append(event.text)
        last.logprobs += event.logprobs
        return True


def _size(event: Tokens) -> int:
    """Return the bytes of an event's tokens, text and log probabilities in memory."""
    size = TOKEN_BYTES * len(event.token_ids) + len(event.text)
    if event.logprobs:
        size += LOGPROB_BYTES * sum(map(len, event.logprobs))
    return size
