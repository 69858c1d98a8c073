"""A reader that waits: one client's stream of a request's events."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.output_reader import Event, OutputReader
from scheduler_svc.control.timing.loop_lag import LoopLag


class ChoiceEnd(NamedTuple):
    """One choice of several finished; the others go on, or have ended before."""

    finished: Finished


class Subscription(OutputReader):
    """Hands one client the events of a request, one at a time, waiting for each."""

    __slots__ = ("_loop_lag", "_paced_at", "_source", "_turns", "_waiter")

    def __init__(self, loop_lag: LoopLag) -> None:
        super().__init__()
        self._loop_lag = loop_lag
        self._waiter: asyncio.Future[None] | None = None
        self._paced_at = 0.0
        self._source: OutputReader | None = None  # None: this one
        self._turns: deque[OutputReader] | None = None  # of several choices: those whose end was not given yet

    @property
    def source(self) -> OutputReader:
        """The reader of the choice whose event ``next`` gave last: this one, or one of ``others``."""
        return self if self._source is None else self._source

    def of_choice(self, index: int) -> OutputReader:
        """Return a reader that wakes this one."""
        return _OtherChoice(self)

    async def next(self) -> Event | ChoiceEnd:
        """Wait for the next event; the outcome is the last.  The request's deadline bounds the wait."""
        while True:
            event = self._poll_choices() if self.others else self.poll()
            if event is not None:
                return event
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            if self._loop_lag.busy and self.position:
                # Under load a few tokens in one message cost as much as one: wait for more of them.
                await self._loop_lag.pause(self._paced_at)
                self._paced_at = self._loop_lag.now()

    def _poll_choices(self) -> Event | ChoiceEnd | None:
        """Take the next event of any choice, in turns; None if there is nothing new.

        The outcome of a choice that did not finish is that of the request, and comes after what the others put out.
        """
        if self._turns is None:
            self._turns = deque((self, *self.others))
        turns, failed = self._turns, None
        for _ in range(len(turns)):
            reader = turns.popleft()
            event = reader.poll()
            if isinstance(event, Finished):
                self._source = reader
                return ChoiceEnd(event)
            turns.append(reader)
            if isinstance(event, Exception):
                failed = event
            elif event is not None:
                self._source = reader
                return event
        self._source = None
        return failed if turns else _whole_end(self)

    def close(self) -> None:
        """Stop reading.  ``Intake.leave`` decides whether the request goes on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.cancel()
        super().close()

    def wake(self) -> None:
        """Wake the client's stream: there is something new."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _whole_end(reader: OutputReader) -> Event | None:
    """Return the end of all choices together."""
    choices = reader.live.choices
    return None if choices is None else choices.published_outcome


class _OtherChoice(OutputReader):
    """Reads a choice above 0 for a subscription."""

    __slots__ = ("_subscription",)

    def __init__(self, subscription: Subscription) -> None:
        super().__init__()
        self._subscription = subscription

    def wake(self) -> None:
        """Wake the client's stream."""
        self._subscription.wake()
