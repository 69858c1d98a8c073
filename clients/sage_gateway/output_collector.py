"""Collects what the choices of one request put out, for one reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sage_client import Accepted, Call, Finished, SageError, Scheduled, TokenLogprob

BUFFER_BYTES = 1024 * 1024
"""Output of one HTTP request that may wait for the reader, in bytes of memory; then its choices are paused."""

LEAST_BUFFER_BYTES = 8 * 1024
"""What each choice may have waiting, however many there are."""

TOKEN_BYTES = 36
LOGPROB_BYTES = 160
"""Memory of a token id in a list, and of a candidate's log probability."""


@dataclass(slots=True)
class Piece:
    """Output of one choice that was not read yet."""

    choice: int
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[tuple[TokenLogprob, ...]] = field(default_factory=list)  # one per token, if they were asked for
    finished: Finished | None = None  # with the last piece of the choice


class ChoiceSink:
    """Receives the events of one choice, which is a request of its own at the scheduler."""

    def __init__(
        self,
        choice: int,
        wake: Callable[[], None],
        *,
        on_accepted: Callable[[Accepted], None],
        on_scheduled: Callable[[Scheduled], None],
        limit_bytes: int,
    ) -> None:
        self.choice = choice
        self.call: Call | None = None
        self.error: SageError | None = None
        self.over = False
        self._wake = wake
        self._on_accepted = on_accepted
        self._on_scheduled = on_scheduled
        self._limit = limit_bytes
        self._size = 0
        self._texts: list[str] = []
        self._piece: Piece | None = None

    def accepted(self, event: Accepted, /) -> None:
        """Tell of the acceptance."""
        self._on_accepted(event)

    def scheduled(self, event: Scheduled, /) -> None:
        """Tell of the placement."""
        self._on_scheduled(event)

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
        """Keep output until it is read; pause the request while too much waits."""
        piece = self._piece or self._new_piece()
        piece.token_ids += token_ids
        self._texts.append(text)
        self._size += TOKEN_BYTES * len(token_ids) + len(text)
        if logprobs:
            piece.logprobs += logprobs
            self._size += LOGPROB_BYTES * sum(map(len, logprobs))
        if self._size >= self._limit and self.call is not None:
            self.call.pause()
        self._wake()

    def finished(self, event: Finished, /) -> None:
        """Note the end."""
        (self._piece or self._new_piece()).finished = event
        self.over = True
        self._wake()

    def failed(self, error: SageError, /) -> None:
        """Note the failure."""
        self.error = error
        self.over = True
        self._wake()

    def take(self) -> Piece | None:
        """Return what is new; None if nothing is."""
        piece, self._piece = self._piece, None
        if piece is not None:
            piece.text = "".join(self._texts)
            self._texts.clear()
            self._size = 0
            if self.call is not None and self.call.paused:
                self.call.resume()
        return piece

    def _new_piece(self) -> Piece:
        self._piece = Piece(self.choice)
        return self._piece


def buffer_bytes(choices: int) -> int:
    """Return how much output of one choice may wait, where an HTTP request has so many."""
    return max(LEAST_BUFFER_BYTES, BUFFER_BYTES // max(1, choices))


class OutputCollector:
    """The sinks of a request's choices, and their reader.

    What arrives while the reader is busy is handed over in one piece per choice.
    """

    def __init__(self, choices: int, limit_bytes: int = BUFFER_BYTES) -> None:
        self.accepted: Accepted | None = None  # of the first choice that was accepted
        self.scheduled: Scheduled | None = None  # the latest placement
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self.sinks = [
            ChoiceSink(
                choice,
                self._wake,
                on_accepted=self._take_accepted,
                on_scheduled=self._take_scheduled,
                limit_bytes=limit_bytes,
            )
            for choice in range(choices)
        ]

    @property
    def over(self) -> bool:
        """Whether all choices ended."""
        return all(sink.over for sink in self.sinks)

    async def next(self) -> list[Piece]:
        """Return what is new of all choices, waiting for something; empty once all ended and all was read.

        Raises the SageError of the first choice that failed, before what the others put out.
        """
        while True:
            if error := next((sink.error for sink in self.sinks if sink.error), None):
                raise error
            pieces = [piece for sink in self.sinks if (piece := sink.take()) is not None]
            if pieces or self.over:
                return pieces
            self._reader = self._loop.create_future()
            await self._reader

    def leave(self) -> None:
        """Let go of the choices that have not ended: the scheduler cancels them."""
        for sink in self.sinks:
            if sink.call is not None:
                sink.call.leave()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _take_accepted(self, event: Accepted) -> None:
        self.accepted = self.accepted or event

    def _take_scheduled(self, event: Scheduled) -> None:
        self.scheduled = event
