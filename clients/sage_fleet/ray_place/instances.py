"""Asks the scheduler which executors of a fleet take requests."""

from __future__ import annotations

from typing import Protocol

import sage_client as sage
from sage_fleet.scheduler_client import client_of, instances_of, is_ready
from sage_fleet.specification.fleet import Fleet


class Instances(Protocol):
    """The scheduler's view of the instances."""

    async def ready(self, fleet: Fleet) -> frozenset[str]:
        """Return the ids of the instances that take requests; none while no scheduler answers."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SchedulerInstances:
    """Asks the scheduler that a fleet names."""

    def __init__(self) -> None:
        self._client: sage.AsyncClient | None = None

    async def ready(self, fleet: Fleet) -> frozenset[str]:
        """Return the ids of the instances that take requests; none while no scheduler answers."""
        if self._client is None:
            self._client = client_of(fleet, fleet.scheduler.address)
        found = await instances_of(self._client)
        return frozenset(name for name, instance in found.items() if is_ready(instance))

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()
