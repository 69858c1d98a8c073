"""What an earlier scheduler left about one instance that had a session with it."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.request import RequestKey


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierInstance:
    """An instance that may come back with requests of an earlier scheduler."""

    model: str = ""  # that it served; empty: not known
    holds: frozenset[RequestKey] | None = None
    """All requests that it may hold, as a scheduler that handed over wrote them down; None: not known."""
