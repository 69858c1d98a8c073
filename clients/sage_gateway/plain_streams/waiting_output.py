"""What a plain stream's request has put out and its HTTP client has not been sent, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from sage_client import Accepted, Call, ChoiceFinished, Finished, PromptRead, SageError, Scheduled, TokenLogprob
from sage_gateway.http_call import HttpCall

LIMIT_BYTES = 1024 * 1024
"""Memory of the texts that wait for a slow reader, beyond which the request is paused."""

PIECE_BYTES = 100
"""Memory of a text beside four bytes for each of its characters."""


@dataclass(frozen=True, slots=True)
class Output:
    """What is new of a request."""

    text: str
    tokens: int
    finished: Finished | None  # with the last one
    cached_prompt_tokens: int | None = None  # as far as that is known


class WaitingOutput:
    """A sink of the SDK, with a reader that waits for something new.

    What comes while the reader is busy is handed over in one piece.  Only the number of the tokens is kept.
    """

    def __init__(self, call: HttpCall, limit_bytes: int = LIMIT_BYTES) -> None:
        """``call``: told of the acceptance and of placements."""
        self.request: Call | None = None  # paused while too much waits
        self._call = call
        self._limit = limit_bytes
        self._loop = asyncio.get_running_loop()
        self._texts: list[str] = []
        self._tokens = self._bytes = 0
        self._cached: int | None = None
        self._finished: Finished | None = None
        self._error: SageError | None = None
        self._changed = False
        self._reader: asyncio.Future[None] | None = None

    def accepted(self, event: Accepted, /) -> None:
        """Tell of the acceptance."""
        self._call.accepted = self._call.accepted or event

    def scheduled(self, event: Scheduled, /) -> None:
        """Tell of the placement."""
        self._call.scheduled = event

    def prompt_read(self, event: PromptRead, /) -> None:
        """Keep how much of the prompt was cached."""
        self._cached = event.cached_tokens

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
        self._texts.append(text)
        self._tokens += len(token_ids)
        self._bytes += PIECE_BYTES + 4 * len(text)
        if self._bytes >= self._limit and self.request is not None:
            self.request.pause()
        self._wake()

    def choice_finished(self, event: ChoiceFinished, /) -> None:
        """Do nothing: a plain stream has one choice."""

    def finished(self, event: Finished, /) -> None:
        """Note the end."""
        self._finished = event
        self._cached = event.usage.cached_prompt_tokens  # counts before what was told first, as in RequestOutputs
        self._wake()

    def failed(self, error: SageError, /) -> None:
        """Note the failure, which counts before what was not read."""
        self._error = error
        self._wake()

    async def next(self) -> Output:
        """Return what is new, waiting for something.  Raises the SageError of a request that failed."""
        while not self._changed:
            self._reader = self._loop.create_future()
            await self._reader
        self._changed = False
        if self._error is not None:
            raise self._error
        return self._take()

    def _take(self) -> Output:
        texts = self._texts
        text = texts[0] if len(texts) == 1 else "".join(texts)
        taken = Output(text, self._tokens, self._finished, self._cached)
        texts.clear()
        self._tokens = self._bytes = 0
        if self.request is not None and self.request.paused:
            self.request.resume()
        return taken

    def _wake(self) -> None:
        self._changed = True
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)
