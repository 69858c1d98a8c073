"""The port of an ordering, which decides who goes next."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.domain.waiting_request import WaitingRequest


class Ordering(Protocol):
    """Gives a waiting request its key; the smallest key goes next, ties in order of arrival in the queue.

    A key is a time, seconds on the clock that ``arrived_at`` is on: the moment from which the request is due.  It stays
    the same while the request waits, so a heap can hold the requests.  It is bounded, so nothing starves:

        arrived_at <= key <= since + max_delay_s

    ``since`` is when the request arrived or, if it was resumed, was requeued.  So a request that arrives more than
    ``max_delay_s`` after ``since`` goes behind it, however busy the fleet.
    """

    @property
    def max_delay_s(self) -> float:
        """Seconds; the bound above, revisions included."""
        ...

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return the key of a request; called once when it enters the queue or the ordering is put in force."""
        ...

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return a later key if the request should step back now, else None; called when it comes to the head.

        The queue calls it again after a revision, and follows at most ``queue_order.MAX_REVISIONS`` revisions.
        """
        ...

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        ...


def separates_classes(ordering: Ordering) -> bool:
    """Whether tenants share out each class by itself, which is so unless the ordering's ``by_class`` is False.

    An ordering that does not look at the class says ``by_class = False``: then tenants share out all classes together,
    and who floods one class does not delay another tenant's requests in other classes.
    """
    return bool(getattr(ordering, "by_class", True))


def goes_by_arrival(ordering: Ordering) -> bool:
    """Whether a request goes behind all that came before it in its class, which its ``by_arrival`` says.

    Of another ordering it is not known which requests go before a new one.
    """
    return bool(getattr(ordering, "by_arrival", False))
