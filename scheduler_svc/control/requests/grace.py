"""How long a request whose reader's stream broke waits for a reader."""

from __future__ import annotations

from sage_common.clock import Clock, Timer
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import CLIENT_GONE
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.errors import RequestCancelled

GRACE_S = 2.0
"""Seconds that a request of a broken session waits before it is cancelled."""

ADOPTED_S = 15.0
"""Seconds that an adopted request waits: its reader has to find this scheduler first."""


class Grace:
    """The requests that nobody reads any more and that wait for a reader; each has one timer."""

    def __init__(self, clock: Clock, requests: RequestTable, seconds: float = GRACE_S) -> None:
        self._clock = clock
        self._requests = requests
        self.seconds = seconds
        self._waiting: dict[LiveRequest, Timer] = {}  # bounded by the live requests
        requests.on_end(lambda live, reason: self.end(live))

    def __len__(self) -> int:
        return len(self._waiting)

    def begin(self, live: LiveRequest, seconds: float | None = None) -> None:
        """Cancel a live request that is not detached after ``seconds``, unless ``end`` comes before.

        ``seconds``: None for those of a broken session.
        """
        self.end(live)
        due = self._clock.now() + (self.seconds if seconds is None else seconds)
        self._waiting[live] = self._clock.call_at(due, lambda: self._over(live))

    def end(self, live: LiveRequest) -> None:
        """Note that a request has a reader again, or has ended."""
        timer = self._waiting.pop(live, None)
        if timer is not None:
            timer.cancel()

    def _over(self, live: LiveRequest) -> None:
        self._waiting.pop(live, None)
        self._requests.end(live, RequestCancelled(CLIENT_GONE))
