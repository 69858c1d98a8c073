"""The Ray cluster as a fleet's place."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sage_fleet.errors import FleetError
from sage_fleet.places.group_changes import Member, next_change, removal_rank
from sage_fleet.places.place_status import PlaceStatus
from sage_fleet.places.scale_check import check_scale
from sage_fleet.places.versions import group_version
from sage_fleet.ray_place.actor_name import ActorName
from sage_fleet.ray_place.bundles import Reservation, reservation
from sage_fleet.ray_place.cluster import ActorRecord, Cluster
from sage_fleet.ray_place.executor_start import executor_start
from sage_fleet.ray_place.instances import Instances, SchedulerInstances
from sage_fleet.ray_place.ray_cluster import RayCluster
from sage_fleet.ray_place.report import report
from sage_fleet.specification.fleet import Fleet
from sage_local.fleet.command_lines import STOP_MARGIN_S

POLL_S = 0.5
REMOVE_TIMEOUT_S = 30.0  # for Ray to end an actor, with its executor, that did not end by itself


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """State of a fleet at one moment."""

    actors: tuple[ActorRecord, ...]
    draining: frozenset[ActorName]
    ready: frozenset[ActorName] = frozenset()  # executors that take requests
    ready_known: bool = False

    def members(self, group: str, remove_first: Sequence[str] = ()) -> list[Member]:
        """Return the executors of a group that Ray keeps up."""
        return [
            Member(
                number=each.name.number,
                version=each.name.version,
                ready=each.name in self.ready,
                draining=each.name in self.draining,
                removal=removal_rank(each.name.instance_id, remove_first),
            )
            for each in self.actors
            if each.name.group == group and each.state != "dead"
        ]

    def wanted(self, group: str) -> int:
        """Return how many executors of a group run or ought to run."""
        return sum(each.name.group == group and each.name not in self.draining for each in self.actors)


class RayPlace:
    """Runs the executors of a fleet as detached actors on a Ray cluster.

    What was applied is read from the actors' names, so that any process can go on with it.  The scheduler and the
    gateway run apart: the place dials the scheduler.
    """

    def __init__(self, fleet: Fleet, *, cluster: Cluster | None = None, instances: Instances | None = None) -> None:
        self._fleet = fleet
        self._cluster = cluster or RayCluster(fleet.ray.address)
        self._instances = instances or SchedulerInstances()
        self._created: dict[ActorName, float] = {}  # loop time
        self._leaves_by: dict[ActorName, float] = {}  # loop time at which a draining actor is removed

    async def apply(self, fleet: Fleet) -> None:
        """Start, replace and drain executors until they are as the specification has them, and READY.

        Raises FleetError if that takes longer after a step than executors may take to start and to drain.
        """
        self._fleet = fleet
        view = await self._view()
        counts = {name: group.bounded(view.wanted(name)) for name, group in fleet.groups.items()}
        deadline = self._step_deadline()
        while True:
            if await self._step(view, counts):
                deadline = self._step_deadline()
            view = await self._view()
            late = self._not_as_wanted(view, counts)
            if not late:
                return
            if _now() > deadline:
                raise FleetError(f"not as wanted in {fleet.start_timeout_s:g} s: {'; '.join(late)}")
            await asyncio.sleep(POLL_S)

    async def status(self) -> PlaceStatus:
        """Return what runs now."""
        view = await self._view(of_scheduler=False)
        return report(self._fleet, view.actors, view.draining)

    async def scale(self, group: str, count: int, remove_first: Sequence[str] = ()) -> None:
        """Create actors that are missing; those that are too many drain: ``remove_first``, then the highest numbers."""
        check_scale(self._fleet, group, count)
        view = await self._view(of_scheduler=False)
        version = group_version(self._fleet, group)
        if any(member.version != version and not member.draining for member in view.members(group)):
            raise FleetError(f"group {group}: what runs is of another specification; apply this one first")
        await self._remove_dead(view)
        await self._change(view, group, count, room=True, remove_first=remove_first)

    async def delete(self) -> None:
        """Drain all executors at once, and return when no actor and no reservation is left."""
        view = await self._view(of_scheduler=False)
        deadline = self._leave_deadline() + REMOVE_TIMEOUT_S
        while view.actors:
            if _now() > deadline:
                left = ", ".join(each.name.instance_id for each in view.actors)
                raise FleetError(f"Ray did not end {left} in time")
            await self._leave_all(view, view.actors)
            await asyncio.sleep(POLL_S)
            view = await self._view(of_scheduler=False)

    async def close(self) -> None:
        """Close the connections; what runs goes on."""
        await self._cluster.close()
        await self._instances.close()

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _view(self, *, of_scheduler: bool = True) -> _View:
        actors = await self._cluster.actors(self._fleet.name)
        draining = await self._cluster.draining([each.name for each in actors if each.state == "alive"])
        draining |= {each.name for each in actors if each.state == "ending"}
        ages = await self._instances.ready(self._fleet) if of_scheduler else None
        ready = frozenset(
            each.name for each in actors if each.state == "alive" and self._is_ready(each.name, ages or {})
        )
        return _View(actors=actors, draining=draining, ready=ready, ready_known=ages is not None)

    def _is_ready(self, name: ActorName, ages: Mapping[str, float]) -> bool:
        """Whether an executor takes requests, and not one before it that had its instance id."""
        age = ages.get(name.instance_id)
        return age is not None and age <= _now() - self._created.get(name, -math.inf)

    async def _step(self, view: _View, counts: dict[str, int]) -> bool:
        """Do what can be done now; return whether anything was."""
        changed = await self._remove_dead(view)
        unknown = [each for each in view.actors if each.name.group not in counts]
        changed |= await self._leave_all(view, unknown)
        changed |= await self._leave_all(view, [each for each in view.actors if each.name in view.draining])
        for group, count in counts.items():
            version = group_version(self._fleet, group)
            # Without an older one to make room, an actor waits for a node: that is what an autoscaler of Ray acts on.
            old = any(member.version != version for member in view.members(group))
            if old and not view.ready_known:
                continue  # which of the old ones serve is not known
            room = not old or await self._cluster.has_room(self._reserved(group))
            changed |= await self._change(view, group, count, room=room)
        return changed

    async def _change(
        self, view: _View, group: str, count: int, *, room: bool, remove_first: Sequence[str] = ()
    ) -> bool:
        version = group_version(self._fleet, group)
        change = next_change(view.members(group, remove_first), count=count, version=version, room=room)
        for number in change.start:
            await self._create(ActorName(fleet=self._fleet.name, group=group, number=number, version=version))
        leaving = [each for each in view.actors if each.name.group == group and each.name.number in change.drain]
        await self._leave_all(view, leaving)
        return bool(change.start or change.drain)

    async def _create(self, name: ActorName) -> None:
        reserved = self._reserved(name.group)
        start = executor_start(self._fleet, name, reserved)
        self._created[name] = _now()
        await self._cluster.create(name, start, reserved, max_restarts=self._fleet.ray.max_restarts)

    async def _leave_all(self, view: _View, actors: Iterable[ActorRecord]) -> bool:
        """Have actors drain and end; return whether that began or was cut short for one of them."""
        return any(await asyncio.gather(*(self._leave(each, drains=each.name in view.draining) for each in actors)))

    async def _leave(self, actor: ActorRecord, *, drains: bool) -> bool:
        deadline = self._leaves_by.setdefault(actor.name, self._leave_deadline())
        alive = actor.state == "alive"
        if alive and drains and _now() < deadline:
            return False
        if alive and not drains and await self._cluster.leave(actor.name):
            return True
        await self._cluster.remove(actor.name)  # it has no executor that could drain, or did not in time
        del self._leaves_by[actor.name]
        return actor.state != "ending"

    async def _remove_dead(self, view: _View) -> bool:
        dead = [each.name for each in view.actors if each.state == "dead"]
        await asyncio.gather(*(self._cluster.remove(name) for name in dead))
        return bool(dead)

    def _reserved(self, group: str) -> Reservation:
        return reservation(self._fleet.groups[group], self._fleet.ray.gpus_per_node)

    # --- ends -------------------------------------------------------------------------------------------------------

    def _not_as_wanted(self, view: _View, counts: dict[str, int]) -> list[str]:
        """Return what is left to do, in words."""
        late = [f"{each.name.instance_id} drains" for each in view.actors if each.name in view.draining]
        late += [f"{each.name.instance_id} still runs" for each in view.actors if each.name.group not in counts]
        for group, count in counts.items():
            version = group_version(self._fleet, group)
            serving = sum(each.ready and each.version == version for each in view.members(group) if not each.draining)
            if serving != count or len(view.members(group)) != count:
                late.append(f"group {group} has {serving} of {count} executors READY")
        return late

    def _leave_deadline(self) -> float:
        return _now() + self._fleet.drain_timeout_s + STOP_MARGIN_S + REMOVE_TIMEOUT_S

    def _step_deadline(self) -> float:
        return self._leave_deadline() + self._fleet.start_timeout_s


def _now() -> float:
    return asyncio.get_running_loop().time()
