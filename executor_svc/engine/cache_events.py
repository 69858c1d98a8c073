"""Keeps an engine's cache events until they are taken."""

from __future__ import annotations

from collections.abc import Sequence

from executor_svc.runtime.engine_port import BlocksStored, CacheCleared, CacheEvent

MOST_TOKENS_KEPT = 4_194_304
"""Most tokens and blocks in the events that wait to be taken; beyond that they are dropped for ``CacheCleared``."""


class CacheEvents:
    """Events of a prefix cache that nobody has taken yet, oldest first."""

    def __init__(self) -> None:
        self._events: list[CacheEvent] = []
        self._size = 0

    def add(self, event: CacheEvent) -> None:
        """Keep an event.  If that is too much, this and all events before are replaced by ``CacheCleared``."""
        self._size += 1
        if not isinstance(event, CacheCleared):
            self._size += len(event.hashes)
        if isinstance(event, BlocksStored):
            self._size += len(event.token_ids)
        if isinstance(event, CacheCleared) or self._size > MOST_TOKENS_KEPT:
            self._events, self._size = [CacheCleared()], 1
        else:
            self._events.append(event)

    def take(self) -> Sequence[CacheEvent]:
        """Return the events since the last call."""
        taken, self._events, self._size = self._events, [], 0
        return taken
