"""The label of an adapter: operators may add and remove any number over time, metrics name the first that ran."""

from __future__ import annotations

from scheduler_svc.telemetry.tenant_label import OTHER

ADAPTER_LABELS_LIMIT = 256
"""Adapters of all models that labels name."""


class AdapterLabels:
    """Names the adapters that the first requests ran with; all others count together.

    A request that was never placed names none: while no engine is ready, it may ask for an adapter that does not exist.
    """

    def __init__(self, limit: int = ADAPTER_LABELS_LIMIT) -> None:
        self._limit = limit
        self._named: set[tuple[str, str]] = set()

    def label(self, model: str, adapter: str, *, placed: bool) -> str:
        """Return the adapter's name, or OTHER once ``limit`` adapters have labels.

        ``placed``: whether the request was placed on an instance, which has the adapter.
        """
        key = model, adapter
        if key not in self._named:
            if not placed or len(self._named) >= self._limit:
                return OTHER
            self._named.add(key)
        return adapter
