"""What decides who goes next."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.domain.waiting_request import WaitingRequest


class Ordering(Protocol):
    """Gives a waiting request its key; the smallest key goes next, ties in order of arrival in the queue.

    A key is a time, seconds on the clock that ``arrived_at`` is on: the moment from which the request is due.  It stays
    the same while the request waits, so a heap serves.  And it is bounded, so nothing starves:

        arrived_at <= key <= since + max_delay_s

    ``since`` is arrival or, of a resumed request, resumption.  So a request that arrives more than ``max_delay_s``
    after that goes behind it, however busy the fleet.
    """

    @property
    def max_delay_s(self) -> float:
        """Seconds; the bound above, revisions included."""
        ...

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return the key of a request; asked once when it enters the queue or the ordering is put in force."""
        ...

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return a later key if the request should step back now, else None; asked when it comes to the head.

        Asked again after that; the queue follows a few times at most.
        """
        ...

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        ...
