"""The waiting requests of one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from scheduler_svc.domain.errors import QueueFull
from scheduler_svc.domain.most_asked import MostAsked
from scheduler_svc.domain.ordering.base import Ordering
from scheduler_svc.domain.queue_order import REVISIONS_PER_CALL, QueueOrder, TakenOut
from scheduler_svc.domain.request import Priority, Request, RequestKey
from scheduler_svc.domain.shares.group import Charge
from scheduler_svc.domain.shares.settings import ShareSettings
from scheduler_svc.domain.shares.tenant_use import TenantUse, TenantUses
from scheduler_svc.domain.waiting_request import WaitingRequest

_LOOKS = 512  # requests looked at for one that makes room


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueView:
    """The figures of a queue."""

    waiting: int  # requests
    limit: int  # requests that may wait; resumed ones come on top
    by_priority: dict[Priority, int]


class ModelQueue:
    """Keeps the requests that wait, and their order (``QueueOrder``).

    Requests that no READY instance can serve are set aside, out of the order, until ``bring_back``.  Quarantined ones
    never enter it: ``all_apart`` has them.
    """

    def __init__(
        self,
        model: str,
        ordering: Ordering,
        *,
        limit: int,
        shares: ShareSettings | None = None,
        uses: TenantUses | None = None,
    ) -> None:
        self.model = model
        self.limit = limit
        self.changed = False  # requests were added or reordered since the last pass
        shares = shares if shares is not None else ShareSettings()
        self._uses = uses if uses is not None else TenantUses(shares)
        self._limited = self._uses.counts
        self.order = QueueOrder(ordering, shares, self._uses, self._tell_changed)
        self._waiting: dict[RequestKey, WaitingRequest] = {}
        self._aside: dict[RequestKey, WaitingRequest] = {}  # of ``_waiting``, the longest unserved first
        self._apart: dict[RequestKey, WaitingRequest] = {}  # of ``_waiting``, in order of arrival in the queue
        self.brought_back_at = 0  # the pool's generation when requests were brought back last
        self.looked_further_at = float("-inf")  # when a pass looked behind what was held back last, on the clock
        self._classes: dict[Priority, dict[RequestKey, WaitingRequest]] = {p: {} for p in Priority}  # of ``_waiting``
        self._special = 0  # requests that wait and are not ``plain``
        self._most = MostAsked()
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._waiting

    @property
    def garbage(self) -> int:
        """Entries of the heaps whose request has left.  Looks at every tenant."""
        return self.order.entries - len(self._waiting) + len(self._aside) + len(self._apart)

    @property
    def waits_since(self) -> float | None:
        """When the request that waits longest came into the queue, on the scheduler's clock; None if none waits."""
        first = next(iter(self._waiting.values()), None)
        return first.enqueued_at if first is not None else None

    @property
    def most_asked(self) -> MostAsked | None:
        """The most that the waiting requests ask of engines; None where some ask for more than ``MostAsked`` says."""
        return None if self._special else self._most

    def waits_critical(self) -> bool:
        """Whether a CRITICAL request waits."""
        return bool(self._classes[Priority.CRITICAL])

    @property
    def placeable(self) -> int:
        """Count the requests that wait for capacity: those set aside are not among them."""
        return len(self._waiting) - len(self._aside)

    @property
    def full(self) -> bool:
        """Whether a new request is refused.  Requests set aside fill no place but their own, as many as the limit."""
        return self.room <= 0

    @property
    def room(self) -> int:
        """How many new requests find a place."""
        waiting = len(self._waiting)
        return min(self.limit - waiting + len(self._aside), 2 * self.limit - waiting)

    def check_capacity(self, expected_wait_s: float, places: int = 1) -> None:
        """Raise QueueFull, with the expected wait, where the queue has not so many places."""
        if self.room < places:
            raise QueueFull(self.model, self.limit, expected_wait_s)

    def add(self, waiting: WaitingRequest, now: float) -> None:
        """Let a request wait.  Raises ValueError if it waits already, or if the ordering gives it no finite key."""
        key = waiting.request.key
        if key in self._waiting:
            raise ValueError(f"request {key} waits already")
        self._last_number += 1
        waiting.number = self._last_number
        waiting.key = self.order.key_of(waiting, now)
        self._waiting[key] = waiting
        self._classes[waiting.request.priority][key] = waiting
        if not waiting.plain:
            self._special += 1
        self._most.take(waiting)
        self.changed = True
        if self._limited and (use := self._uses.of(key.tenant, now)) is not None:
            use.comes(waiting, now)
        if waiting.alone:
            self._apart[key] = waiting
        else:
            self.order.enter(waiting)

    def find(self, key: RequestKey) -> WaitingRequest | None:
        """Return a waiting request; None if it does not wait."""
        return self._waiting.get(key)

    def remove(self, key: RequestKey) -> WaitingRequest | None:
        """Take a request out, wherever it stands, and return it.  None if it does not wait."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return None
        out = self._aside.pop(key, None) if self._aside else None
        if out is None and self._apart:
            out = self._apart.pop(key, None)
        del self._classes[waiting.request.priority][key]
        if not waiting.plain:
            self._special -= 1
        if not self._waiting:
            self._most = MostAsked()
        waiting.number = -1
        if out is None:
            self.order.leave(waiting)
        return waiting

    def place(self, waiting: WaitingRequest, output_tokens: int) -> Charge | None:
        """Take out a request that is placed, and charge it to its tenant with its predicted output.

        Returns the charge; None while the tenant is alone in its class.
        """
        charge = None if waiting.alone else self.order.charge(waiting, output_tokens)
        self.remove(waiting.request.key)
        if self._limited and (use := self._uses.find(waiting.request.key.tenant)) is not None:
            use.placed()
        return charge

    def withdraw(self, key: RequestKey, now: float) -> WaitingRequest | None:
        """Take a request out that is not placed, and return it.  None if it does not wait."""
        waiting = self.remove(key)
        if waiting is not None and self._limited and (use := self._uses.find(key.tenant)) is not None:
            use.leaves(waiting, now)
            self._uses.rest(use, now)
        return waiting

    def youngest_below(self, priority: Priority) -> WaitingRequest | None:
        """Return the youngest request of the lowest class that has one without a token; None if none is lower."""
        for lower in reversed(Priority):
            if lower <= priority:
                return None
            if (found := self._youngest(lower)) is not None:
                return found
        return None

    def youngest_beyond_share(self, priority: Priority, tenant: str) -> WaitingRequest | None:
        """Return the youngest request of this class of the tenant that has most waiting for its weight.

        None unless that is more than the named tenant would have with another request.
        """
        most = self.order.tenant_beyond_share(priority, tenant)
        return self._youngest(priority, most) if most is not None else None

    def _youngest(self, priority: Priority, tenant: str | None = None) -> WaitingRequest | None:
        """Look at the latest ``_LOOKS`` requests of a class for one without a token, of this tenant if one is named."""
        latest = zip(reversed(self._classes[priority].values()), range(_LOOKS), strict=False)
        for waiting, _ in latest:
            key = waiting.request.key
            out = waiting.resumed or key in self._aside or key in self._apart
            if not out and (tenant is None or key.tenant == tenant):
                return waiting
        return None

    def turns_of_tenant(self, request: Request) -> float:
        """Return how many times a request waits for one of its tenant to end, because of the tenant's running limit."""
        use = self._uses.find(request.key.tenant) if self._limited else None
        if use is None or not use.limits.running_limit:
            return 0.0
        before = use.waiting - (1 if request.key in self._waiting else 0)
        return max(0, use.running + before + 1 - use.limits.running_limit) / use.limits.running_limit

    def head(self, now: float) -> WaitingRequest | None:
        """Return the request that goes next (``QueueOrder.head``)."""
        return self.order.head(now)

    def reconsider(self, waiting: WaitingRequest, now: float, *, first_token_s: float, finish_s: float) -> bool:
        """Let the ordering judge the head by the times predicted for it now, in seconds; False if it keeps its key.

        If it steps back, another request may be the head.
        """
        waiting.first_token_s, waiting.finish_s = first_token_s, finish_s
        return self.order.reconsider(waiting, now)

    def behind_head(
        self, depth: int, now: float, unservable: Callable[[WaitingRequest], bool] = lambda _: False
    ) -> list[WaitingRequest]:
        """Return up to ``depth`` requests after the head, in order, as if each were placed.  They stay in the queue.

        Those that are ``unservable`` are set aside instead, at most ``REVISIONS_PER_CALL`` of them.
        """
        taken: list[TakenOut] = []
        aside_left = REVISIONS_PER_CALL
        try:
            while len(taken) <= depth and (waiting := self.head(now)) is not None:
                if taken and aside_left and unservable(waiting):
                    aside_left -= 1
                    self.set_aside(waiting, now)
                    continue
                taken.append(self.order.take_out(waiting))
        finally:
            self.order.put_back(taken)
        return [entry[2] for _, entry, _ in taken[1:]]

    def set_aside(self, waiting: WaitingRequest, now: float) -> None:
        """Take the request that is at the head now out of the order until ``bring_back``; it still waits."""
        self.order.drop_head(waiting)
        if waiting.unserved_since is None:
            waiting.unserved_since = now
        self._aside[waiting.request.key] = waiting

    def bring_back(self) -> None:
        """Put all requests that were set aside back into the order: their model's instances changed."""
        for waiting in self._aside.values():
            self.order.enter(waiting)
        self._aside.clear()

    @property
    def aside(self) -> Iterator[WaitingRequest]:
        """Iterate over the requests that were set aside."""
        return iter(self._aside.values())

    @property
    def any_apart(self) -> bool:
        """Whether a quarantined request waits."""
        return bool(self._apart)

    @property
    def all_apart(self) -> Iterator[WaitingRequest]:
        """Iterate over the quarantined requests."""
        return iter(self._apart.values())

    def reorder(self, ordering: Ordering, now: float) -> int:
        """Reorder all requests; ties keep the order of arrival in the queue.  Returns the number of requests.

        What becomes of tenants' counters: ``QueueOrder.arrange``.
        """
        self.order.reorder(ordering, self._waiting.values(), now)
        out = self._aside.keys() | self._apart.keys()
        self.order.arrange([waiting for key, waiting in self._waiting.items() if key not in out])
        self.changed = True
        return len(self._waiting)

    def position(self, waiting: WaitingRequest) -> int:
        """Return the place of a request in the order; 1 is next.  Looks at every waiting request.

        Requests that are set aside delay nobody, so they do not count.
        """
        mine = (waiting.key, waiting.number)
        others = (w for k, w in self._waiting.items() if k not in self._aside)
        return self.order.place_behind(waiting, [w for w in others if (w.key, w.number) < mine])

    def __iter__(self) -> Iterator[WaitingRequest]:
        """Iterate over the waiting requests in the order of arrival in the queue."""
        return iter(self._waiting.values())

    def view(self) -> QueueView:
        """Return the queue's figures."""
        return QueueView(
            waiting=len(self._waiting),
            limit=self.limit,
            by_priority=self.by_priority,
        )

    def ends_of_classes(self) -> list[tuple[WaitingRequest, WaitingRequest]]:
        """Return the oldest and the youngest waiting request of each class that has one."""
        return [(next(iter(c.values())), next(reversed(c.values()))) for c in self._classes.values() if c]

    def oldest_placeable(self) -> list[WaitingRequest]:
        """Return the oldest request of each class, unless something else than a lack of capacity keeps it waiting."""
        oldest = [next(iter(each.values())) for each in self._classes.values() if each]
        if self._aside or self._apart:
            oldest = [w for w in oldest if w.request.key not in self._aside and w.request.key not in self._apart]
        return [w for w in oldest if self.at_running_limit(w) is None] if self._limited else oldest

    @property
    def by_priority(self) -> dict[Priority, int]:
        """How many requests wait, by class."""
        return {p: len(each) for p, each in self._classes.items()}

    def at_running_limit(self, waiting: WaitingRequest) -> TenantUse | None:
        """Return the use of a request's tenant if it runs as many requests as it may."""
        use = self._uses.find(waiting.request.key.tenant)
        return use if use is not None and use.at_running_limit else None

    def _tell_changed(self) -> None:
        self.changed = True
