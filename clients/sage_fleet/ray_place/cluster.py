"""The port to a Ray cluster, as a fleet needs it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol

from sage_fleet.ray_place.actor_name import ActorName
from sage_fleet.ray_place.bundles import Reservation
from sage_fleet.ray_place.executor_start import ExecutorStart

ActorState = Literal["unplaced", "starting", "alive", "ending", "dead"]
"""unplaced: no node has room; starting: Ray starts the actor, also again; ending: its reservation is removed, and Ray
ends it; dead: Ray starts it no more, and its reservation remains."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorRecord:
    """An executor's actor, as Ray has it."""

    name: ActorName
    state: ActorState
    node: str = ""  # address and id of its node; empty while it has none
    restarts: int = 0


class Cluster(Protocol):
    """Creates, lists and ends the actors of executors.

    All methods raise ``FleetError`` if the cluster does not answer in a bounded time.
    """

    async def actors(self, fleet: str) -> tuple[ActorRecord, ...]:
        """Return the actors of a fleet that were created and not removed."""
        ...

    async def has_room(self, reserved: Reservation) -> bool:
        """Return whether the cluster could place this reservation now."""
        ...

    async def create(self, name: ActorName, start: ExecutorStart, reserved: Reservation, *, max_restarts: int) -> None:
        """Reserve the resources of an executor and create its actor, which starts when there is room."""
        ...

    async def draining(self, names: Collection[ActorName]) -> frozenset[ActorName]:
        """Return which of these actors drain; one that does not answer does not."""
        ...

    async def leave(self, name: ActorName) -> bool:
        """Have an actor drain its executor and remove itself; False if it does not answer."""
        ...

    async def remove(self, name: ActorName) -> None:
        """End an actor, its executor and their reservation at once, if they exist."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...
