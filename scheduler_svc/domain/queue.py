"""The waiting requests of one model, in the order in which they are placed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite

from scheduler_svc.domain.errors import QueueFull
from scheduler_svc.domain.ordering.base import Ordering
from scheduler_svc.domain.request import Priority, RequestKey
from scheduler_svc.domain.waiting_request import WaitingRequest

_GARBAGE_FLOOR = 64


_Entry = tuple[float, int, WaitingRequest]


class OrderingFailed(Exception):
    """The ordering raised an error for one request."""

    def __init__(self, waiting: WaitingRequest, error: Exception) -> None:
        self.waiting = waiting
        self.error = error
        super().__init__(f"the ordering failed for {waiting.request.key}")


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueView:
    """The figures of a queue."""

    waiting: int  # requests
    limit: int  # requests that may wait; resumed ones come on top
    by_priority: dict[Priority, int]


class ModelQueue:
    """Keeps waiting requests in a heap by the ordering's static keys.

    A request that leaves early stays in the heap as garbage until it comes up, or until there is more garbage than
    content; so the heap never holds more than twice the waiting requests and a constant.

    Requests that no READY instance can serve are set aside, out of the heap, until ``bring_back``.  Quarantined ones
    never enter it: ``apart`` has them.
    """

    #: How often one key is revised at most, so that an ordering cannot make the queue spin.
    MAX_REVISIONS = 4
    #: How many keys one call revises at most, so that a burst of late requests does not hold up everything else.
    REVISIONS_PER_CALL = 512

    def __init__(self, model: str, ordering: Ordering, *, limit: int) -> None:
        self.model = model
        self.limit = limit
        self.changed = False  # requests were added or reordered since the last pass
        self._ordering = ordering
        self._heap: list[_Entry] = []
        self._waiting: dict[RequestKey, WaitingRequest] = {}
        self._aside: dict[RequestKey, WaitingRequest] = {}  # of ``_waiting``, the longest unserved first
        self._apart: dict[RequestKey, WaitingRequest] = {}  # of ``_waiting``, in order of arrival in the queue
        self.brought_back_at = 0  # the pool's generation when requests were brought back last
        self._by_priority = dict.fromkeys(Priority, 0)
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._waiting

    @property
    def garbage(self) -> int:
        """Entries of the heap whose request has left."""
        return len(self._heap) - len(self._waiting)

    @property
    def placeable(self) -> int:
        """Count the requests that wait for capacity: those set aside are not among them."""
        return len(self._waiting) - len(self._aside)

    @property
    def full(self) -> bool:
        """Whether a new request is refused.  Requests set aside fill no place but their own, as many as the limit."""
        return self.placeable >= self.limit or len(self._waiting) >= 2 * self.limit

    def check_capacity(self, expected_wait_s: float) -> None:
        """Raise QueueFull, with the expected wait, where the queue is at its limit."""
        if self.full:
            raise QueueFull(self.model, self.limit, expected_wait_s)

    def add(self, waiting: WaitingRequest, now: float) -> None:
        """Let a request wait.  Raises ValueError if it waits already, or if the ordering gives it no finite key."""
        key = waiting.request.key
        if key in self._waiting:
            raise ValueError(f"request {key} waits already")
        self._last_number += 1
        waiting.number = self._last_number
        waiting.key = _key_of(waiting, self._ordering, now)
        self._waiting[key] = waiting
        self._by_priority[waiting.request.priority] += 1
        self.changed = True
        if waiting.alone:
            self._apart[key] = waiting
        else:
            heapq.heappush(self._heap, (waiting.key, waiting.number, waiting))

    def find(self, key: RequestKey) -> WaitingRequest | None:
        """Return a waiting request; None if it does not wait."""
        return self._waiting.get(key)

    def remove(self, key: RequestKey) -> WaitingRequest | None:
        """Take a request out, wherever it stands, and return it.  None if it does not wait."""
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return None
        self._aside.pop(key, None)
        self._apart.pop(key, None)
        self._by_priority[waiting.request.priority] -= 1
        waiting.number = -1
        if self.garbage > _GARBAGE_FLOOR + len(self._waiting):
            self._heap = [entry for entry in self._heap if _is_current(entry)]
            heapq.heapify(self._heap)
        return waiting

    def head(self, now: float) -> WaitingRequest | None:
        """Return the request that goes next; None if none waits.

        The ordering may first move late requests further back, at most ``REVISIONS_PER_CALL`` of them; after that the
        head is returned as it is.
        """
        heap = self._heap
        revisions_left = self.REVISIONS_PER_CALL
        while heap:
            entry = heap[0]
            if not _is_current(entry):
                heapq.heappop(heap)
                continue
            waiting = entry[2]
            if not revisions_left or not self._revise(waiting, now):
                return waiting
            revisions_left -= 1
            heapq.heapreplace(heap, (waiting.key, waiting.number, waiting))
        return None

    def reconsider(self, waiting: WaitingRequest, now: float, *, first_token_s: float, finish_s: float) -> bool:
        """Let the ordering judge the head by the times predicted for it now, in seconds; False if it keeps its key.

        If it steps back, another request may be the head.
        """
        waiting.first_token_s, waiting.finish_s = first_token_s, finish_s
        if not self._revise(waiting, now):
            return False
        heapq.heappush(self._heap, (waiting.key, waiting.number, waiting))  # its old entry is garbage now
        return True

    def behind_head(
        self, depth: int, now: float, unservable: Callable[[WaitingRequest], bool] = lambda _: False
    ) -> list[WaitingRequest]:
        """Return up to ``depth`` requests after the head, in order.  They stay in the queue.

        Those that are ``unservable`` are set aside instead, at most ``REVISIONS_PER_CALL`` of them.
        """
        heap = self._heap
        taken: list[_Entry] = []
        aside_left = self.REVISIONS_PER_CALL
        try:
            while len(taken) <= depth and (waiting := self.head(now)) is not None:
                if taken and aside_left and unservable(waiting):
                    aside_left -= 1
                    self.set_aside(waiting, now)
                else:
                    taken.append(heapq.heappop(heap))
        finally:
            for entry in taken:
                heapq.heappush(heap, entry)
        return [entry[2] for entry in taken[1:]]

    def set_aside(self, waiting: WaitingRequest, now: float) -> None:
        """Take the request that is at the head now out of the order until ``bring_back``; it still waits."""
        assert self._heap[0][2] is waiting, "only a head is set aside"
        heapq.heappop(self._heap)
        if waiting.unserved_since is None:
            waiting.unserved_since = now
        self._aside[waiting.request.key] = waiting

    def bring_back(self) -> None:
        """Put all requests that were set aside back into the order: their model's instances changed."""
        for waiting in self._aside.values():
            heapq.heappush(self._heap, (waiting.key, waiting.number, waiting))
        self._aside.clear()

    @property
    def aside(self) -> Iterator[WaitingRequest]:
        """Iterate over the requests that were set aside."""
        return iter(self._aside.values())

    @property
    def all_apart(self) -> Iterator[WaitingRequest]:
        """Iterate over the quarantined requests."""
        return iter(self._apart.values())

    @property
    def apart(self) -> WaitingRequest | None:
        """The quarantined request that came first; None if none waits."""
        return next(iter(self._apart.values()), None)

    def _revise(self, waiting: WaitingRequest, now: float) -> bool:
        if waiting.revisions >= self.MAX_REVISIONS:
            return False
        try:
            key = self._ordering.revise(waiting, now)
        except Exception as error:
            raise OrderingFailed(waiting, error) from error
        if key is None or key <= waiting.key:
            return False
        waiting.key = key
        waiting.revisions += 1
        return True

    def reorder(self, ordering: Ordering, now: float) -> int:
        """Reorder all requests; ties keep the order of arrival in the queue.  Returns the number of requests."""
        self._ordering = ordering
        for waiting in self._waiting.values():
            waiting.late = False
            waiting.revisions = 0
            waiting.key = _key_of(waiting, ordering, now)
        out = self._aside.keys() | self._apart.keys()
        self._heap = [(w.key, w.number, w) for key, w in self._waiting.items() if key not in out]
        heapq.heapify(self._heap)
        self.changed = True
        return len(self._waiting)

    def position(self, waiting: WaitingRequest) -> int:
        """Return the place of a request in the order; 1 is next.  Looks at every waiting request.

        Requests that are set aside delay nobody, so they do not count.
        """
        mine = (waiting.key, waiting.number)
        return 1 + sum((w.key, w.number) < mine for k, w in self._waiting.items() if k not in self._aside)

    def __iter__(self) -> Iterator[WaitingRequest]:
        """Iterate over the waiting requests in the order of arrival in the queue."""
        return iter(self._waiting.values())

    def view(self) -> QueueView:
        """Return the queue's figures."""
        return QueueView(waiting=len(self._waiting), limit=self.limit, by_priority=dict(self._by_priority))


def _key_of(waiting: WaitingRequest, ordering: Ordering, now: float) -> float:
    """Ask the ordering for a request's key.  Raises ValueError unless it is a finite number."""
    key = ordering.key(waiting, now)
    if not isfinite(key):
        raise ValueError(f"the ordering gives {waiting.request.key} the key {key}")
    return key


def _is_current(entry: _Entry) -> bool:
    waiting = entry[2]
    return waiting.number == entry[1] and waiting.key == entry[0]
