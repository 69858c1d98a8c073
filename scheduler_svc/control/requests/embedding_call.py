"""A call whose inputs are embedded: each is a request of its own, and the call ends with all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.output_reader import OutputReader
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import SchedulerError

AT_ONCE = 16
"""Inputs that are admitted in one turn of the event loop, and tokenized at the same time."""


class _Input(OutputReader):
    """Tells its call when its request ended."""

    __slots__ = ("_ended", "place")

    def __init__(self, place: int, ended: Callable[[_Input], None]) -> None:
        super().__init__()
        self.place = place
        self._ended = ended

    def wake(self) -> None:
        if self.live.outcome is not None:
            self._ended(self)


class InputFailed(Exception):
    """An input of a call was refused, or its request did not finish."""

    def __init__(self, place: int, error: SchedulerError) -> None:
        super().__init__(str(error))
        self.place = place  # of the input, from 0
        self.error = error


class EmbeddingCall:
    """Submits the inputs of one call and waits for all of them, without a task for each."""

    def __init__(self, intake: Intake, inputs: Sequence[Submission]) -> None:
        self._intake = intake
        self._submissions = inputs
        self._readers = [_Input(place, self._note) for place in range(len(inputs))]
        self._left = len(inputs)
        self._failure: InputFailed | None = None
        self._over = asyncio.Event()

    async def run(self, accepted: Callable[[LiveRequest], None]) -> list[LiveRequest]:
        """Return the requests, all of them finished, in the order of the inputs; their deadlines bound the wait.

        ``accepted``: told of the first request, and may raise.  Whatever ends the call early cancels the requests that
        nobody else reads.

        Raises InputFailed for the first input that fails.
        """
        try:
            for first in range(0, len(self._submissions), AT_ONCE):
                await self._enter(first, first + AT_ONCE)
                if not first:
                    accepted(self._readers[0].live)
                if self._failure is not None:
                    break
                await asyncio.sleep(0)  # others get their turn
            if self._left and self._failure is None:
                await self._over.wait()
            if self._failure is not None:
                raise self._failure
            found = [reader.live for reader in self._readers]
            for live in found:
                self._intake.ends.settles(live)
            return found
        finally:
            for reader in self._readers:
                if not reader.released:
                    self._intake.leave_soon(reader)

    async def _enter(self, first: int, end: int) -> None:
        """Submit some inputs.  Raises InputFailed for one that is refused."""
        some = range(first, min(end, len(self._submissions)))
        if len(some) == 1:
            await self._enter_one(first)
            return
        results = await asyncio.gather(*(self._enter_one(place) for place in some), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _enter_one(self, place: int) -> None:
        reader = self._readers[place]
        try:
            await self._intake.enter(self._submissions[place], reader)
        except SchedulerError as error:
            raise InputFailed(place, error) from error
        if reader.live.outcome is not None:  # of the record: nothing more happens to it
            self._note(reader)

    def _note(self, reader: _Input) -> None:
        outcome = reader.live.outcome
        if isinstance(outcome, SchedulerError):
            self._failure = self._failure or InputFailed(reader.place, outcome)
        self._left -= 1
        if not self._left or self._failure is not None:
            self._over.set()


def vector_of(live: LiveRequest) -> bytes:
    """Return the vector of a finished request: little-endian 32-bit floats."""
    outcome = live.outcome
    assert isinstance(outcome, Finished), "only a finished request has a vector"
    return outcome.embedding
