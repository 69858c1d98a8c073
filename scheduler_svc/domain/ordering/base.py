"""What an ordering is."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.domain.waiting_request import WaitingRequest


class Ordering(Protocol):
    """Gives a waiting request its key; the smallest key goes next, ties in order of arrival in the queue.

    A key is a time: the moment from which the request is due, on the clock that ``arrived_at`` is on.  It is static
    while the request waits, so a heap serves.  And it is bounded, so nothing starves:

        arrived_at <= key <= since + max_delay_s

    ``since`` is arrival or, of a resumed request, resumption.  So whatever arrives more than ``max_delay_s`` after
    that goes behind it, however busy the fleet.
    """

    @property
    def max_delay_s(self) -> float:
        """Seconds; the bound above, revisions included."""
        ...

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Called once when the request enters the queue or the ordering is put in force."""
        ...

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Called when the request comes to the head: a later key if it should step back now, else None.

        Called again after that; the queue follows a few times at most.
        """
        ...

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """What the request is ordered by, in words."""
        ...
