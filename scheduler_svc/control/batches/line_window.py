"""How many lines of all batches wait or run at the same time."""

from __future__ import annotations

import asyncio
from collections import deque


class LineWindow:
    """Gives places to lines.  Tenants that wait get one in turn, whatever number of batches each of them has."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the tenant that is served next comes first
        self.taken = 0

    async def take(self, tenant: str) -> None:
        """Wait for a place."""
        if self._free and not self._waiting:
            self._free -= 1
            self.taken += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given at the same moment
                self.give_back()
            raise

    def give_back(self) -> None:
        """Give a place back: the next one that waits has it."""
        self._free += 1
        self.taken -= 1
        while self._free and self._waiting:
            tenant = next(iter(self._waiting))
            places = self._waiting.pop(tenant)
            place = places.popleft()
            if places:
                self._waiting[tenant] = places  # it is the last now
            if not place.done():
                self._free -= 1
                self.taken += 1
                place.set_result(None)
