"""Counts the accepted requests that name an adapter."""

from __future__ import annotations

from collections import Counter

from sage_common.clock import Clock
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.adapters.registered_adapter import RegisteredAdapter
from scheduler_svc.domain.adapters.selection import AdapterUse


class AdapterUses:
    """The accepted requests by model and adapter, and when each adapter was named last.

    Bounded by the live requests and the registered adapters.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._requests: Counter[tuple[str, str]] = Counter()
        self._used_at: dict[tuple[str, str], float] = {}
        self.changed_models: set[str] = set()  # since they were looked at last

    def accepted(self, live: LiveRequest) -> None:
        """Count a request that was accepted, or adopted."""
        self._count(live, 1)

    def ended(self, live: LiveRequest) -> None:
        """Count a request no more."""
        self._count(live, -1)

    def _count(self, live: LiveRequest, by: int) -> None:
        request = live.request
        if not request.adapter:
            return
        key = request.model, request.adapter
        before = self._requests[key]
        self._requests[key] = before + by
        if self._requests[key] <= 0:
            del self._requests[key]
        if key in self._used_at:
            self._used_at[key] = self._clock.now()
        if not before or key not in self._requests:
            self.changed_models.add(request.model)

    def requests(self, model: str, name: str) -> int:
        """Return how many accepted requests name an adapter."""
        return self._requests.get((model, name), 0)

    def of(self, adapter: RegisteredAdapter) -> AdapterUse:
        """Return how a registered adapter is used."""
        key = adapter.model, adapter.name
        used_at = self._used_at.setdefault(key, self._clock.now())
        return AdapterUse(name=adapter.name, requests=self._requests.get(key, 0), used_at=used_at)

    def forget(self, model: str, name: str) -> None:
        """Drop when an adapter was used, because it is registered no more."""
        self._used_at.pop((model, name), None)
