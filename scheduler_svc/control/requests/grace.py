"""How long a request whose reader's stream broke waits for a reader."""

from __future__ import annotations

from collections import deque

from sage_common.clock import Clock, Timer
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import CLIENT_GONE
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.errors import RequestCancelled

GRACE_S = 2.0
"""Seconds that a request of a broken session waits before it is cancelled."""

ADOPTED_S = 15.0
"""Seconds that an adopted request waits: its reader has to find this scheduler first."""

ENDS_PER_TURN = 16
"""Requests that end in one turn of the event loop: each takes about 0.1 ms, and one session may have had 4,096."""


class Grace:
    """The requests that nobody reads any more and that wait for a reader; each has one timer.

    Those of one session are over at the same moment: then they end a few per turn of the event loop.
    """

    def __init__(self, clock: Clock, requests: RequestTable, seconds: float = GRACE_S) -> None:
        self._clock = clock
        self._requests = requests
        self.seconds = seconds
        self._waiting: dict[LiveRequest, Timer | None] = {}  # bounded by the live requests; None: its wait is over
        self._over: deque[LiveRequest] = deque()  # those without a timer, and some that have a reader again or ended
        self._left = ENDS_PER_TURN  # requests that may still end in this turn
        self._turn: Timer | None = None  # until the next one
        requests.on_end(lambda live, reason: self.end(live.lead) if live.all_ended else None)

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, live: LiveRequest, seconds: float | None = None) -> None:
        """Cancel a live request that is not detached after ``seconds``, unless ``end`` comes before.

        ``seconds``: None for those of a broken session; 0: in one of the next turns of the event loop.
        """
        self.end(live)
        wait_s = self.seconds if seconds is None else seconds
        if wait_s > 0:
            self._waiting[live] = self._clock.call_at(self._clock.now() + wait_s, lambda: self._expire(live))
        else:
            self._expire(live)

    def end(self, live: LiveRequest) -> None:
        """Note that a request has a reader again, or has ended."""
        timer = self._waiting.pop(live, None)
        if timer is not None:
            timer.cancel()

    def _expire(self, live: LiveRequest) -> None:
        """Have a request end, in this turn of the event loop or in one of the next."""
        self._waiting[live] = None
        self._over.append(live)
        self._end_some()

    def _end_some(self) -> None:
        """End requests whose wait is over, as many as this turn has left; the others in the next turns."""
        while self._over and self._left:
            live = self._over.popleft()
            if live in self._waiting and self._waiting[live] is None:
                del self._waiting[live]
                self._left -= 1
                self._requests.end(live, RequestCancelled(CLIENT_GONE))
        if self._left < ENDS_PER_TURN and self._turn is None:
            self._turn = self._clock.call_at(self._clock.now(), self._next_turn)

    def _next_turn(self) -> None:
        self._turn, self._left = None, ENDS_PER_TURN
        self._end_some()
