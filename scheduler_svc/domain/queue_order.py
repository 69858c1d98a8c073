"""The order in which the waiting requests of one model are placed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from math import isfinite
from typing import Final

from scheduler_svc.domain.ordering.base import Ordering, goes_by_arrival, separates_classes
from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.shares.flow import Entry
from scheduler_svc.domain.shares.group import Charge, ShareGroup
from scheduler_svc.domain.shares.settings import ShareSettings
from scheduler_svc.domain.shares.tenant_use import TenantUses
from scheduler_svc.domain.waiting_request import WaitingRequest

#: How often one key is revised at most, so that an ordering cannot make the queue spin.
MAX_REVISIONS: Final = 4
#: How many keys one call revises at most, so that a burst of late requests does not hold up everything else.
REVISIONS_PER_CALL: Final = 512

#: A request that is taken out for a moment: its group, its entry there, and what its tenant was charged meanwhile.
TakenOut = tuple[ShareGroup, Entry, float]


class OrderingFailed(Exception):
    """The ordering raised an error for one request."""

    def __init__(self, waiting: WaitingRequest, error: Exception) -> None:
        self.waiting = waiting
        self.error = error
        super().__init__(f"the ordering failed for {waiting.request.key}")


class QueueOrder:
    """Orders requests by class, tenant and the ordering's static keys.

    Which class goes next is up to the ordering: of the requests that are next in their class, the one with the smallest
    key.  Within a class the share decides between tenants (``shares/``), and the ordering between a tenant's requests.
    An ordering that does not look at the class (``by_class`` is False) has all requests in one class.
    """

    def __init__(
        self, ordering: Ordering, shares: ShareSettings, uses: TenantUses, tell_changed: Callable[[], None]
    ) -> None:
        """``tell_changed``: called when a tenant that was at its running limit may run more."""
        self._ordering = ordering
        self._by_class = separates_classes(ordering)
        self._shares = shares
        self._uses = uses
        self._limited = uses.counts
        self._tell_changed = tell_changed
        self.groups: dict[int, ShareGroup] = {}  # by class; 0 where the ordering does not look at classes
        self._deadlines: list[float] = []  # stated by the requests in the order, sorted

    @property
    def entries(self) -> int:
        """Entries of the heaps, those of requests that left included.  Looks at every tenant."""
        return sum(len(flow.heap) for group in self.groups.values() for flow in group.flows.values())

    # ------------------------------------------------------------------ who is in it

    def key_of(self, waiting: WaitingRequest, now: float) -> float:
        """Ask the ordering for a request's key.  Raises ValueError unless it is a finite number."""
        key = self._ordering.key(waiting, now)
        if not isfinite(key):
            raise _not_finite(key, waiting)
        return key

    def enter(self, waiting: WaitingRequest) -> None:
        """Enter a request, which has its key."""
        self._group_of(waiting).add(waiting)
        if (target_at := waiting.request.target_at) is not None:
            insort(self._deadlines, target_at)

    def leave(self, waiting: WaitingRequest) -> None:
        """Take a request out, wherever it stands."""
        self._group_of(waiting).remove(waiting)
        if (target_at := waiting.request.target_at) is not None:
            del self._deadlines[bisect_left(self._deadlines, target_at)]

    def charge(self, waiting: WaitingRequest, output_tokens: int) -> Charge | None:
        """Charge a request that is placed to its tenant; return the charge, None while the tenant is alone."""
        return self._group_of(waiting).served(waiting, output_tokens)

    def reorder(self, ordering: Ordering, all_waiting: Iterable[WaitingRequest], now: float) -> None:
        """Go by another ordering; give ``all_waiting`` their new keys.  Call ``arrange`` next."""
        self._ordering = ordering
        for waiting in all_waiting:
            waiting.late = False
            waiting.revisions = 0
            waiting.key = self.key_of(waiting, now)

    def arrange(self, in_order: list[WaitingRequest]) -> None:
        """Put the requests in the order where their new keys say.

        Tenants' counters are kept, unless one of the orderings looks at classes and the other does not: then tenants
        begin equal.
        """
        if separates_classes(self._ordering) != self._by_class:
            self._by_class = not self._by_class
            self.groups = {}
            for waiting in in_order:
                self._group_of(waiting).add(waiting)
            return
        by_group: dict[ShareGroup, list[WaitingRequest]] = {group: [] for group in self.groups.values()}
        for waiting in in_order:
            by_group[self._group_of(waiting)].append(waiting)
        for group, all_waiting in by_group.items():
            group.reorder(all_waiting)

    # ------------------------------------------------------------------ who goes next

    def head(self, now: float) -> WaitingRequest | None:
        """Return the request that goes next; None if none waits, or only those of tenants at their running limit.

        The ordering may first move late requests further back, at most ``REVISIONS_PER_CALL`` of them; after that the
        head is returned as it is.
        """
        revisions_left = REVISIONS_PER_CALL
        while (waiting := self._first()) is not None:
            if not revisions_left or not self._revise(waiting, now):
                return waiting
            revisions_left -= 1
            self._group_of(waiting).renew(waiting)
        return None

    def reconsider(self, waiting: WaitingRequest, now: float) -> bool:
        """Let the ordering judge the head anew; False if it keeps its key.  Else another request may be the head."""
        if not self._revise(waiting, now):
            return False
        self._group_of(waiting).renew(waiting)
        return True

    def drop_head(self, waiting: WaitingRequest) -> None:
        """Take out the request that is at the head now."""
        group = self._group_of(waiting)
        assert group.first() is waiting, "only a head is set aside"
        group.pop()
        self.leave(waiting)

    def take_out(self, waiting: WaitingRequest) -> TakenOut:
        """Take out the head for a moment, as if it were placed.  ``put_back`` undoes that."""
        group = self._group_of(waiting)
        return group, group.pop(), group.count_provisionally(waiting)

    def put_back(self, taken: list[TakenOut]) -> None:
        """Put all back that were taken out, in the order in which they were."""
        for group, entry, counted in reversed(taken):
            group.push_back(entry, counted)

    # ------------------------------------------------------------------ how many go before

    def ahead_of_new(self, priority: Priority, tenant: str) -> int:
        """Estimate how many requests would be placed before a new one of this class and tenant.

        Those of other tenants at their running limit delay nobody.
        """
        if not self._by_class:
            group = self.groups.get(0)
            return self._ahead_in(group, tenant) if group is not None else 0
        higher = sum(g.count - self._held(g, tenant) for cls, g in self.groups.items() if cls < priority)
        own = self.groups.get(int(priority))
        return higher + (self._ahead_in(own, tenant) if own is not None else 0)

    def surely_ahead_of_new(self, request: Request) -> int:
        """Estimate how many requests at least would be placed before a new one with a deadline.

        Unless the ordering goes by arrival, those without a stated deadline that is as early may all go later.
        """
        ahead = self.ahead_of_new(request.priority, request.key.tenant)
        if request.deadline_at is not None and not goes_by_arrival(self._ordering):
            ahead = min(ahead, bisect_right(self._deadlines, request.deadline_at))
        return ahead

    def place_behind(self, waiting: WaitingRequest, before: list[WaitingRequest]) -> int:
        """Return a request's place; 1 is next.  ``before``: those with smaller keys.

        Among tenants it is an estimate: those of one class are taken to take turns by their weights, beginning at
        their counters.
        """
        group = self._group_of(waiting)
        if len(group.flows) < 2 or waiting.alone:
            return 1 + len(before)
        elsewhere = sum(self._group_of(w) is not group for w in before)
        own = sum(w.request.key.tenant == waiting.request.key.tenant and self._group_of(w) is group for w in before)
        return 1 + elsewhere + own + group.ahead_of(waiting.request.key.tenant, own)

    # ------------------------------------------------------------------ whose turn it is

    def tenant_beyond_share(self, priority: Priority, tenant: str) -> str | None:
        """Return the tenant that has most waiting in this class for its weight.

        None unless that is more than the named tenant would have with another request.
        """
        group = self.groups.get(int(priority) if self._by_class else 0)
        return group.beyond_share(tenant) if group is not None else None

    def why_next(self, waiting: WaitingRequest) -> tuple[str, ...]:
        """Say why the tenant of the head is next; nothing where it is alone in its class."""
        return self._group_of(waiting).why_next(waiting)

    def share_of(self, waiting: WaitingRequest) -> str:
        """Say where a request's tenant stands among those that wait; empty where it is alone in its class."""
        return self._group_of(waiting).share_of(waiting.request.key.tenant)

    # ------------------------------------------------------------------ inside

    def _ahead_in(self, group: ShareGroup, tenant: str) -> int:
        return max(0, group.ahead_of_new(tenant) - self._held(group, tenant))

    def _held(self, group: ShareGroup, tenant: str) -> int:
        """Count the requests of tenants at their running limit, this one left out."""
        return group.held_beside(tenant) if self._limited else 0

    def _group_of(self, waiting: WaitingRequest) -> ShareGroup:
        cls = int(waiting.request.priority) if self._by_class else 0
        group = self.groups.get(cls)
        if group is None:
            group = self.groups[cls] = ShareGroup(self._shares, self._uses, self._tell_changed)
        return group

    def _first(self) -> WaitingRequest | None:
        """Return the request that is next, of those that are next in their class the one with the smallest key."""
        if len(self.groups) == 1:
            (only,) = self.groups.values()
            return only.first() if only.count else None
        best = None
        for group in self.groups.values():
            first = group.first() if group.count else None
            if first is not None and (
                best is None or first.key < best.key or (first.key == best.key and first.number < best.number)
            ):
                best = first
        return best

    def _revise(self, waiting: WaitingRequest, now: float) -> bool:
        if waiting.revisions >= MAX_REVISIONS:
            return False
        try:
            key = self._ordering.revise(waiting, now)
            if key is not None and not isfinite(key):
                raise _not_finite(key, waiting)
        except Exception as error:
            raise OrderingFailed(waiting, error) from error
        if key is None or key <= waiting.key:
            return False
        waiting.key = key
        waiting.revisions += 1
        return True


def _not_finite(key: float, waiting: WaitingRequest) -> ValueError:
    """Return the error of a key that is no finite number: with it the request would be lost in the order."""
    return ValueError(f"the ordering gives {waiting.request.key} the key {key}")
