"""Asks the scheduler which executors of a fleet take requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import sage_client as sage
from sage_fleet.processes import scheduler_addresses
from sage_fleet.scheduler_client import client_of, instances_of, is_ready
from sage_fleet.specification.fleet import Fleet


class Instances(Protocol):
    """The scheduler's view of the instances."""

    async def ready(self, fleet: Fleet) -> Mapping[str, float] | None:
        """Return the instances that take requests, with seconds since they do; None while no scheduler answers."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class SchedulerInstances:
    """Asks the scheduler that a fleet names."""

    def __init__(self) -> None:
        self._client: sage.AsyncClient | None = None

    async def ready(self, fleet: Fleet) -> Mapping[str, float] | None:
        """Return the instances that take requests, with seconds since they do; None while no scheduler answers."""
        if self._client is None:
            self._client = client_of(fleet, scheduler_addresses(fleet))
        found = await instances_of(self._client)
        return None if found is None else {name: each.state_age_s for name, each in found.items() if is_ready(each)}

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()
