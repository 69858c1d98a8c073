"""A reader that waits: one client's stream of a request's events."""

from __future__ import annotations

import asyncio

from scheduler_svc.control.requests.output_reader import Event, OutputReader
from scheduler_svc.control.timing.loop_lag import LoopLag


class Subscription(OutputReader):
    """Hands one client the events of a request, one at a time, waiting for each."""

    __slots__ = ("_loop_lag", "_paced_at", "_waiter")

    def __init__(self, loop_lag: LoopLag) -> None:
        super().__init__()
        self._loop_lag = loop_lag
        self._waiter: asyncio.Future[None] | None = None
        self._paced_at = 0.0

    async def next(self) -> Event:
        """Wait for the next event; the outcome is the last.  The request's deadline bounds the wait."""
        while True:
            event = self.poll()
            if event is not None:
                return event
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            if self._loop_lag.busy and self.position:
                # Under load a few tokens in one message cost as much as one: wait for more of them.
                await self._loop_lag.pause(self._paced_at)
                self._paced_at = self._loop_lag.now()

    def close(self) -> None:
        """Stop reading.  ``Intake.leave`` decides whether the request goes on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.cancel()
        super().close()

    def wake(self) -> None:
        """Wake the client's stream: there is something new."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
