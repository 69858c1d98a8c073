"""Reports the actors of a fleet as a place's status."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sage_fleet.places.place_status import ExecutorState, ExecutorStatus, GroupStatus, PlaceStatus
from sage_fleet.places.versions import group_version, services_version
from sage_fleet.processes import scheduler_addresses
from sage_fleet.ray_place.actor_name import ActorName
from sage_fleet.ray_place.cluster import ActorRecord, ActorState
from sage_fleet.specification.fleet import Fleet

MIXED = "mixed"  # version of a group whose executors are being replaced

_STATES: dict[ActorState, ExecutorState] = {
    "unplaced": "starting",
    "starting": "starting",
    "alive": "running",
    "ending": "draining",
    "dead": "ended",
}


def report(fleet: Fleet, actors: Collection[ActorRecord], draining: Collection[ActorName]) -> PlaceStatus:
    """Return the status of a fleet whose actors are these.

    A group without an actor is reported as it is described, with no executor: Ray remembers actors alone.
    """
    groups = sorted({*fleet.groups, *(each.name.group for each in actors)})
    return PlaceStatus(
        running=bool(actors),
        services=services_version(fleet),  # they run apart, so none of them ever differs
        scheduler=scheduler_addresses(fleet),
        groups={
            group: _group(fleet, group, [each for each in actors if each.name.group == group], draining)
            for group in groups
        },
        problems=tuple(_problems(fleet, actors)),
    )


def _group(fleet: Fleet, group: str, actors: Collection[ActorRecord], draining: Collection[ActorName]) -> GroupStatus:
    kept = [each for each in actors if each.name not in draining]
    versions = {each.name.version for each in kept or actors} or {group_version(fleet, group)}
    return GroupStatus(
        version=versions.pop() if len(versions) == 1 else MIXED,
        wanted=len(kept),
        executors=tuple(_executor(each, drains=each.name in draining) for each in actors),
    )


def _executor(actor: ActorRecord, *, drains: bool) -> ExecutorStatus:
    return ExecutorStatus(
        name=actor.name.instance_id,
        state="draining" if drains else _STATES[actor.state],
        where=actor.node,
        restarts=actor.restarts,
    )


def _problems(fleet: Fleet, actors: Collection[ActorRecord]) -> Iterator[str]:
    if fleet.gateway is not None:
        yield "gateway: on Ray it is not started; start it beside the scheduler"
    for each in actors:
        if each.state == "unplaced":
            yield f"{each.name.instance_id} waits: no node has room for it"
        elif each.state == "dead":
            yield f"{each.name.instance_id} has died too often: Ray starts it no more; apply does"
