"""The waiting requests of one tenant in one class, in the order of the policy."""

from __future__ import annotations

import heapq

from scheduler_svc.domain.shares.tenant_use import TenantUse
from scheduler_svc.domain.waiting_request import WaitingRequest

_GARBAGE_FLOOR = 8

Entry = tuple[float, int, WaitingRequest]
"""Key, number and request."""

Offer = tuple[float, float, int, "Flow"]
"""What a flow competes with: its counter, then the key and the number of its first request."""


class Flow:
    """A heap of one tenant's requests by the ordering's keys, and the tenant's counter of tokens served.

    Requests that leave early stay in the heap as garbage until they come up, or until there is more garbage than
    content.
    """

    __slots__ = ("activation", "charges", "count", "counter", "heap", "offer", "slack", "tenant", "use", "weight")

    def __init__(self, tenant: str, weight: float) -> None:
        self.tenant = tenant
        self.weight = weight
        self.use: TenantUse | None = None  # where the tenant has limits
        self.counter = 0.0  # weighted tokens served, divided by the tenant's weight
        self.heap: list[Entry] = []
        self.count = 0  # requests in the order
        self.charges = 0  # attempts that are charged and not settled
        self.activation = 0  # how often requests came to wait where none did
        self.slack = 0.0  # counter less the floor it was lifted to, at the latest activation
        self.offer: Offer | None = None  # the valid one, of those in its group's heap

    def push(self, waiting: WaitingRequest) -> bool:
        """Enter a request, or enter it again with a new key; return whether it is the first now."""
        heapq.heappush(self.heap, (waiting.key, waiting.number, waiting))
        first = self.heap[0]
        return first[2] is waiting and is_current(first)

    def first(self) -> WaitingRequest | None:
        """Return the request with the smallest key; None if there is none."""
        heap = self.heap
        while heap:
            key, number, waiting = heap[0]
            if waiting.number == number and waiting.key == key:
                return waiting
            heapq.heappop(heap)
        return None

    def pop(self) -> Entry:
        """Take the first request out of the heap; ``first`` returned it."""
        return heapq.heappop(self.heap)

    def left(self) -> None:
        """Note that a request left the order; its entry is garbage now."""
        self.count -= 1
        if not self.count:
            self.heap.clear()
        elif len(self.heap) > 2 * self.count + _GARBAGE_FLOOR:
            self.heap = [entry for entry in self.heap if is_current(entry)]
            heapq.heapify(self.heap)

    def correct(self, tokens: float, activation: int) -> None:
        """Add weighted tokens to the counter, which may be negative, as if the charge of this activation had had them.

        If the flow was lifted since, so much of the correction counts as would have changed the lifted counter.
        """
        by = tokens / self.weight
        if activation != self.activation:
            before = max(0.0, self.slack)
            self.slack += by
            by = max(0.0, self.slack) - before
        self.counter += by


def is_current(entry: Entry) -> bool:
    """Whether an entry is that of a request that still waits, with the key that it has now."""
    return entry[2].number == entry[1] and entry[2].key == entry[0]
