"""Several requests of one call: submitted together, and over when all have ended or one has failed."""

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
"""Members that are admitted in one turn of the event loop, and tokenized at the same time."""


class _Member(OutputReader):
    """Tells its group when its request ended."""

    __slots__ = ("_ended", "place")

    def __init__(self, place: int, ended: Callable[[_Member], None]) -> None:
        super().__init__()
        self.place = place
        self._ended = ended

    def wake(self) -> None:
        if self.live.outcome is not None:
            self._ended(self)


class MemberFailed(Exception):
    """A member of a group was refused, or did not finish."""

    def __init__(self, place: int, error: SchedulerError) -> None:
        super().__init__(str(error))
        self.place = place  # of the member, from 0
        self.error = error


class RequestGroup:
    """Submits the requests of one call and waits for all of them, without a task for each."""

    def __init__(self, intake: Intake, members: Sequence[Submission]) -> None:
        self._intake = intake
        self._submissions = members
        self._readers = [_Member(place, self._note) for place in range(len(members))]
        self._left = len(members)
        self._failure: MemberFailed | None = None
        self._over = asyncio.Event()

    async def run(self, accepted: Callable[[LiveRequest], None] = lambda live: None) -> list[LiveRequest]:
        """Return the requests, all of them finished, in the order of the members; their deadlines bound the wait.

        ``accepted``: told of the first request, and may raise.  Whatever ends the group early cancels the requests
        that nobody else reads.  The caller says ``settle`` once nobody needs the results any more.

        Raises MemberFailed for the first member that fails.
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
            return [reader.live for reader in self._readers]
        finally:
            for reader in self._readers:
                if not reader.released:
                    self._intake.readers.leave_soon(reader)

    def settle(self, requests: Sequence[LiveRequest]) -> None:
        """Let executors forget the ends of finished requests, soon: their results are delivered, or kept."""
        for live in requests:
            self._intake.ends.settles(live)

    async def _enter(self, first: int, end: int) -> None:
        """Submit some members.  Raises MemberFailed for one that is refused."""
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
            raise MemberFailed(place, error) from error
        if reader.live.outcome is not None:  # of the record: nothing more happens to it
            self._note(reader)

    def _note(self, reader: _Member) -> None:
        outcome = reader.live.outcome
        if isinstance(outcome, SchedulerError):
            self._failure = self._failure or MemberFailed(reader.place, outcome)
        self._left -= 1
        if not self._left or self._failure is not None:
            self._over.set()


def vector_of(live: LiveRequest) -> bytes:
    """Return the vector of a finished request: little-endian 32-bit floats."""
    outcome = live.outcome
    assert isinstance(outcome, Finished), "only a finished request has a vector"
    return outcome.embedding
