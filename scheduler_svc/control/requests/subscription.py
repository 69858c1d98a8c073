"""One client's view of a request: a position in its output, and which events are still to be sent."""

from __future__ import annotations

import asyncio

from scheduler_svc.control.requests.live_request import LiveRequest, Placement
from scheduler_svc.control.requests.outcome import Outcome
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.timing.loop_lag import LoopLag

Event = Placement | TokenSlice | Outcome


class Subscription:
    """Hands one client the placements, tokens and outcome of a request, in the order of the output."""

    def __init__(self, live: LiveRequest, loop_lag: LoopLag, *, after_token: int, attached: bool) -> None:
        self._live: LiveRequest | None = live
        self.attached = attached
        self._loop_lag = loop_lag
        self.position = after_token
        # A client that attaches gets the current placement, not the earlier ones.
        self._placements_seen = max(0, len(live.placements) - 1) if attached else 0
        self._tail_sent = False
        self._waiter: asyncio.Future[None] | None = None
        self._paced_at = 0.0
        live.readers.append(self)

    @property
    def live(self) -> LiveRequest:
        """The request that is read; there is none any more after ``release``."""
        assert self._live is not None
        return self._live

    @property
    def released(self) -> bool:
        """Whether the request was let go."""
        return self._live is None

    async def next(self) -> Event:
        """Wait for the next event; the outcome is the last.  The request's deadline bounds the wait."""
        while True:
            event = self._poll()
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
        if self in self.live.readers:
            self.live.readers.remove(self)

    def release(self) -> None:
        """Let the request go, so that a stream that cannot end yet does not keep it in memory."""
        self._live = None

    def wake(self) -> None:
        """Wake the client's stream: there is something new."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _poll(self) -> Event | None:
        live, output = self.live, self.live.output
        if self._placements_seen < len(live.placements):
            placement = live.placements[self._placements_seen]
            if placement.from_token <= self.position:
                self._placements_seen += 1
                return placement
        if self.position < len(output):
            tokens = output.read(self.position)
            self.position += len(tokens.token_ids)
            return tokens
        if live.outcome is None:
            return None
        if output.tail and not self._tail_sent:
            self._tail_sent = True
            last = live.placements[-1].decision.attempt_number if live.placements else 0
            return TokenSlice(last, len(output), (), output.text_length - len(output.tail), output.tail, None)
        return live.outcome
