"""Refuses new requests that cannot be served in time, or for which there is no room."""

from __future__ import annotations

from collections.abc import Callable

from scheduler_svc.domain.errors import Overloaded, QueueFull
from scheduler_svc.domain.expected_wait import expected_wait_of, least_wait, predicted_wait
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.request import Request, RequestKey
from scheduler_svc.domain.shares.tenant_use import TenantUses
from scheduler_svc.domain.waiting_request import WaitingRequest


class Door:
    """Checks what comes to a model's queue, and makes room in a full one for what goes before others."""

    def __init__(self, uses: TenantUses, left: Callable[[RequestKey], object], *, refuses_hopeless: bool) -> None:
        """``left``: told of each request that leaves a queue to make room for another.

        ``refuses_hopeless``: whether a request is refused whose deadline is over before it would be placed.
        """
        self._uses = uses
        self._left = left
        self._refuses_hopeless = refuses_hopeless
        self._displaced: list[tuple[RequestKey, Overloaded]] = []  # not taken yet; bounded by the queues

    def check(self, request: Request, pool: Pool, queue: ModelQueue, now: float) -> None:
        """Refuse a new request that is over its tenant's limits, is hopeless, or finds no room.

        A request of several choices needs a place for each.  Another request may make room for one: see
        ``take_displaced``.  Raises TenantLimitReached, Overloaded, QueueFull.
        """
        use = self._uses.of(request.key.tenant, now)
        if use is not None:
            use.check(now, expected_wait_of(pool, request, now), request.choices)
        if self._refuses_hopeless and (refusal := hopeless(pool, request, now)) is not None:
            raise refusal
        if request.choices <= queue.room:
            return
        if request.choices > queue.limit:
            raise QueueFull(queue.model, queue.limit, expected_wait_of(pool, request, now))
        victims: list[WaitingRequest] = []
        while queue.room < request.choices:
            victim = make_room(queue, request, now)
            if victim is None:
                for each in reversed(victims):
                    queue.add(each, now)  # nothing is gained by their leaving
                queue.check_capacity(expected_wait_of(pool, request, now), request.choices)
                return
            victims.append(victim)
        for each in victims:
            self._displace(each, request, pool, now)

    def _displace(self, victim: WaitingRequest, by: Request, pool: Pool, now: float) -> None:
        key = victim.request.key
        self._left(key)
        pool.trouble.turned_away(1, now)
        higher = by.priority < victim.request.priority
        for_whom = f"a request of class {by.priority.name}" if higher else "a tenant with fewer for its weight"
        why = f"the queue of {by.model!r} is full, and this request made room for {for_whom}"
        wait_s = expected_wait_of(pool, victim.request, now)
        self._displaced.append((key, Overloaded(why, cause="displaced", expected_wait_s=wait_s)))

    def take_displaced(self) -> list[tuple[RequestKey, Overloaded]]:
        """Return the requests that left a full queue since the last call, to make room for others."""
        displaced, self._displaced = self._displaced, []
        return displaced


def hopeless(pool: Pool, request: Request, now: float) -> Overloaded | None:
    """Return the refusal of a request whose deadline is over before it would be placed; None if it may be met.

    None also where it is over already: such a request expires, and more capacity would not help it.
    """
    if request.deadline_at is None or request.deadline_at <= now:
        return None
    left_s = request.deadline_at - now
    predicted_s = predicted_wait(pool, request, now)
    if predicted_s is None or predicted_s <= left_s:
        return None
    wait_s = least_wait(pool, request, now)
    if wait_s <= left_s:
        return None
    why = f"the deadline, in {left_s:.3g} s, cannot be met: {wait_s:.3g} s in the queue are predicted"
    return Overloaded(why, cause="deadline", expected_wait_s=wait_s - left_s)


def make_room(queue: ModelQueue, request: Request, now: float) -> WaitingRequest | None:
    """Take a request out of a full queue, so that another may wait, and return it; None if it has to be refused.

    The youngest of the lowest class goes, if that is below the newcomer's.  Where all are of the newcomer's class, the
    youngest of the tenant that has most requests for its weight goes, if it has more than the newcomer's tenant would
    have.  A request that has a token never goes.
    """
    victim = queue.youngest_below(request.priority)
    if victim is None:
        victim = queue.youngest_beyond_share(request.priority, request.key.tenant)
    if victim is not None:
        queue.withdraw(victim.request.key, now)
    return victim
