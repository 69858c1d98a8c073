"""A fleet as its place and its scheduler see it together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import sage_client as sage
from sage_fleet.places.place import Place
from sage_fleet.places.place_status import ExecutorStatus, PlaceStatus
from sage_fleet.scheduler_client import client_of, instances_of
from sage_fleet.specification.fleet import Fleet

_UP = frozenset({sage.InstanceState.READY.value, sage.InstanceState.SLEEPING.value})


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorView:
    """One executor."""

    name: str  # also its instance id
    group: str
    state: str  # of its instance, else of its process: ready, loading, draining, ended ...
    message: str  # why it is in this state, in words
    where: str  # node or devices, in words
    restarts: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetView:
    """A fleet at one moment."""

    name: str
    place: str
    running: bool
    scheduler: str  # host:port; empty where it cannot be reached from here
    gateway: str  # host:port of its HTTP gateway; empty without one, and where it cannot be reached from here
    wanted: Mapping[str, int]  # executors, by group
    executors: tuple[ExecutorView, ...]
    problems: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether every group has as many executors READY or SLEEPING as it is to have, and no others."""
        ready = Counter(each.group for each in self.executors if each.state in _UP)
        all_serve = all(ready[group] == count for group, count in self.wanted.items())
        return self.running and not self.problems and all_serve and len(self.executors) == ready.total()


async def view_of(fleet: Fleet, place: Place) -> FleetView:
    """Ask the place and, if it can be reached, the scheduler.  Raises FleetError and SageError."""
    status = await place.status()
    instances: Mapping[str, sage.Instance] = {}
    if status.running and status.scheduler:
        async with client_of(fleet, status.scheduler) as client:
            instances = await instances_of(client) or {}
    return FleetView(
        name=fleet.name,
        place=fleet.place,
        running=status.running,
        scheduler=status.scheduler,
        gateway=fleet.gateway.address if fleet.gateway is not None and status.scheduler else "",
        wanted={name: group.wanted for name, group in status.groups.items()},
        executors=tuple(_executors(status, instances)),
        problems=status.problems,
    )


def _executors(status: PlaceStatus, instances: Mapping[str, sage.Instance]) -> list[ExecutorView]:
    return [
        ExecutorView(
            name=each.name,
            group=group,
            state=_state(each, instances.get(each.name), asked=bool(status.scheduler)),
            message=_message(each, instances.get(each.name)),
            where=each.where,
            restarts=each.restarts,
        )
        for group, found in status.groups.items()
        for each in found.executors
    ]


def _state(executor: ExecutorStatus, instance: sage.Instance | None, *, asked: bool) -> str:
    """Return the instance's state while its process runs; a place whose scheduler cannot be asked knows by itself."""
    if executor.state != "running":
        return executor.state
    if not asked:
        return "ready"
    return "starting" if instance is None else instance.state.value


def _message(executor: ExecutorStatus, instance: sage.Instance | None) -> str:
    if executor.state != "running" or instance is None or instance.state is sage.InstanceState.READY:
        return ""
    return instance.state_reason
