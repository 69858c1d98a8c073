"""Which attempt works on a request at the moment."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.request import RequestKey


class Stoppable(Protocol):
    """Work on a request that can be called off."""

    @property
    def decision(self) -> Decision:
        """The decision that the work carries out."""
        ...

    def stop(self, reason: str) -> None:
        """Call the work off: the request is over, and with it all that was to follow."""
        ...


class CurrentAttempts:
    """The attempt whose output counts, by request.  At most one per live request."""

    def __init__(self) -> None:
        self._current: dict[RequestKey, Stoppable] = {}

    def begin(self, live: LiveRequest, work: Stoppable) -> None:
        """Count this attempt's output for the request from now on."""
        self._current[live.key] = work

    def over(self, live: LiveRequest, work: Stoppable) -> None:
        """Count this attempt's output no longer; does nothing where another one has taken over."""
        if self._current.get(live.key) is work:
            del self._current[live.key]

    def find(self, live: LiveRequest) -> Stoppable | None:
        """Return what works on the request now."""
        return self._current.get(live.key)

    def request_ended(self, live: LiveRequest, reason: str) -> None:
        """Call off what works on a request that is over."""
        work = self._current.pop(live.key, None)
        if work is not None:
            work.stop(reason)
