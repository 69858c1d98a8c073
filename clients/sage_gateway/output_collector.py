"""Collects what a request puts out, with all its choices, for one reader."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from sage_client import Accepted, Call, ChoiceFinished, Finished, PromptRead, SageError, Scheduled, TokenLogprob

BUFFER_BYTES = 1024 * 1024
"""Output of one HTTP request that may wait for the reader, in bytes of memory; then its requests are paused."""

LEAST_BUFFER_BYTES = 8 * 1024
"""What each request may have waiting, however many an HTTP request has."""

TOKEN_BYTES = 36
LOGPROB_BYTES = 160
"""Memory of a token id in a list, and of a candidate's log probability."""


@dataclass(slots=True)
class Piece:
    """Output of one choice that was not read yet."""

    choice: int
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[tuple[TokenLogprob, ...]] = field(default_factory=list)  # one per token, if they were asked for
    finished: Finished | None = None  # with the last piece of the choice

    @property
    def text(self) -> str:
        """The new text."""
        return "".join(self.texts)


def buffer_bytes(requests: int) -> int:
    """Return how much output of one request may wait, where an HTTP request has so many."""
    return max(LEAST_BUFFER_BYTES, BUFFER_BYTES // max(1, requests))


class OutputCollector:
    """The sink of a request, and its reader.

    What arrives while the reader is busy is handed over in one piece per choice.
    """

    def __init__(self, choices: int, limit_bytes: int = BUFFER_BYTES) -> None:
        self.call: Call | None = None
        self.acceptance: Accepted | None = None  # the acceptance
        self.placement: Scheduled | None = None  # the latest
        self.prompt: PromptRead | None = None  # of choice 0; None: there is nothing to tell, or not yet
        self.over = False
        self._choices = choices
        self._limit = limit_bytes
        self._size = 0
        self._pieces: dict[int, Piece] = {}  # by choice
        self._error: SageError | None = None
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None

    def accepted(self, event: Accepted, /) -> None:
        """Note the acceptance."""
        self.acceptance = event

    def scheduled(self, event: Scheduled, /) -> None:
        """Note the placement."""
        self.placement = event

    def prompt_read(self, event: PromptRead, /) -> None:
        """Note what the engine told of the prompt."""
        if not event.choice:
            self.prompt = event

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
        piece = self._piece(choice)
        piece.token_ids += token_ids
        piece.texts.append(text)
        self._size += TOKEN_BYTES * len(token_ids) + len(text)
        if logprobs:
            piece.logprobs += logprobs
            self._size += LOGPROB_BYTES * sum(map(len, logprobs))
        if self._size >= self._limit and self.call is not None:
            self.call.pause()
        self._wake()

    def choice_finished(self, event: ChoiceFinished, /) -> None:
        """Note the end of one choice of several."""
        self._piece(event.choice).finished = event.finished
        self._wake()

    def finished(self, event: Finished, /) -> None:
        """Note the end."""
        if self._choices == 1:
            self._piece(0).finished = event
        self.over = True
        self._wake()

    def failed(self, error: SageError, /) -> None:
        """Note the failure."""
        self._error = error
        self.over = True
        self._wake()

    async def next(self) -> list[Piece]:
        """Return what is new of all choices, waiting for something; empty once all ended and all was read.

        Raises the request's SageError, before what was not read yet.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._pieces or self.over:
                return self._take()
            self._reader = self._loop.create_future()
            await self._reader

    def leave(self) -> None:
        """Let go of the request if it has not ended: the scheduler cancels it."""
        if self.call is not None:
            self.call.leave()

    def _take(self) -> list[Piece]:
        pieces, self._pieces, self._size = list(self._pieces.values()), {}, 0
        if self.call is not None and self.call.paused:
            self.call.resume()
        return pieces

    def _piece(self, choice: int) -> Piece:
        piece = self._pieces.get(choice)
        if piece is None:
            piece = self._pieces[choice] = Piece(choice)
        return piece

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
