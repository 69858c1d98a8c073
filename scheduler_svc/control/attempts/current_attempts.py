"""Knows which attempt works on a request now."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.request import RequestKey


class Stoppable(Protocol):
    """Work on a request that can be stopped."""

    @property
    def decision(self) -> Decision:
        """The decision that the work carries out."""
        ...

    def stop(self, reason: str) -> None:
        """Stop the work and everything that was to follow it, because the request has ended."""
        ...


class CurrentAttempts:
    """The attempt whose output counts, by request.  At most one per live request."""

    def __init__(self) -> None:
        self._current: dict[RequestKey, Stoppable] = {}

    def begin(self, live: LiveRequest, work: Stoppable) -> None:
        """Count this attempt's output for the request from now on."""
        self._current[live.key] = work

    def over(self, live: LiveRequest, work: Stoppable) -> None:
        """Stop counting this attempt's output; does nothing if another attempt has taken over."""
        if self._current.get(live.key) is work:
            del self._current[live.key]

    def find(self, live: LiveRequest) -> Stoppable | None:
        """Return the work on the request that counts now; None if there is none."""
        return self._current.get(live.key)

    def request_ended(self, live: LiveRequest, reason: str) -> None:
        """Stop the work on a request that has ended."""
        work = self._current.pop(live.key, None)
        if work is not None:
            work.stop(reason)
