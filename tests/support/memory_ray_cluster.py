"""A Ray cluster in memory, and the scheduler's view of what runs on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from sage_fleet.ray_place.actor_name import ActorName
from sage_fleet.ray_place.bundles import Reservation
from sage_fleet.ray_place.cluster import ActorRecord
from sage_fleet.ray_place.executor_start import ExecutorStart
from sage_fleet.specification.fleet import Fleet


class MemoryCluster:
    """Places ``room`` actors at most.  An executor is READY at once, and drains until it was seen to."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.records: dict[ActorName, ActorRecord] = {}
        self.started: dict[ActorName, ExecutorStart] = {}
        self.steps: list[str] = []  # what was asked for, in order
        self.stuck = False  # actors that drain never end
        self._draining: set[ActorName] = set()
        self._seen_draining: set[ActorName] = set()

    async def actors(self, fleet: str) -> tuple[ActorRecord, ...]:
        """Return the actors; those that drain are seen to do so once, and have then ended."""
        if not self.stuck:
            for name in self._seen_draining:
                self.records.pop(name, None)
            self._draining -= self._seen_draining
            self._seen_draining = set(self._draining)
            self._place()
        return tuple(sorted((r for r in self.records.values() if r.name.fleet == fleet), key=lambda r: r.name))

    async def has_room(self, reserved: Reservation) -> bool:
        """Return whether another actor could be placed."""
        return self._alive() < self.room

    async def create(self, name: ActorName, start: ExecutorStart, reserved: Reservation, *, max_restarts: int) -> None:
        """Create an actor, which is alive if there is room."""
        assert name not in self.records, f"{name} is taken"
        self.steps.append(f"create {name.instance_id}")
        self.started[name] = start
        self.records[name] = ActorRecord(name=name, state="unplaced")
        self._place()

    async def draining(self, names: Collection[ActorName]) -> frozenset[ActorName]:
        """Return which drain."""
        return frozenset(self._draining & set(names))

    async def leave(self, name: ActorName) -> bool:
        """Begin a drain."""
        self.steps.append(f"leave {name.instance_id}")
        self._draining.add(name)
        return True

    async def remove(self, name: ActorName) -> None:
        """Remove an actor at once."""
        self.steps.append(f"remove {name.instance_id}")
        self.records.pop(name, None)
        self._draining.discard(name)
        self._place()

    async def close(self) -> None:
        """Do nothing."""

    async def ready(self, fleet: Fleet) -> Mapping[str, float] | None:
        """Return the instances that the scheduler has READY."""
        return {record.name.instance_id: 0.0 for record in self.records.values() if record.state == "alive"}

    def die(self, name: ActorName) -> None:
        """Have Ray give an actor up."""
        self.records[name] = replace(self.records[name], state="dead")

    def _alive(self) -> int:
        return sum(record.state != "unplaced" for record in self.records.values())

    def _place(self) -> None:
        for name, record in self.records.items():
            if record.state == "unplaced" and self._alive() < self.room:
                self.records[name] = replace(record, state="alive", node="node")
