"""Says what applying a fleet changes, before it is applied."""

from __future__ import annotations

from dataclasses import dataclass

from sage_fleet.places.place_status import GroupStatus, PlaceStatus
from sage_fleet.places.versions import group_version, services_version
from sage_fleet.specification.fleet import Fleet

SCHEDULER = "scheduler"
SERVICES = "scheduler and gateway"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that differs between what runs and what is described."""

    of: str  # name of a group, SCHEDULER or SERVICES
    what: str  # in words


def changes(fleet: Fleet, status: PlaceStatus) -> tuple[Change, ...]:
    """Return what ``apply`` changes; empty where the place runs the fleet as it is described."""
    found = []
    if not status.running:
        found.append(_first_start(fleet))
    elif status.services != services_version(fleet):
        found.append(Change(of=SERVICES, what="get other settings"))
    for name in fleet.groups:
        known = status.groups.get(name)
        found += [Change(of=name, what=what) for what in _of_group(fleet, name, known)]
    gone = [name for name in status.groups if name not in fleet.groups]
    found += [Change(of=name, what=f"the group goes, with {counted(_live(status.groups[name]))}") for name in gone]
    return tuple(found)


def _first_start(fleet: Fleet) -> Change:
    if fleet.gateway is None:
        return Change(of=SCHEDULER, what="starts")
    return Change(of=SERVICES, what="start")


def _of_group(fleet: Fleet, name: str, known: GroupStatus | None) -> list[str]:
    described = fleet.groups[name]
    if known is None:
        return [f"{counted(described.least)} {'starts' if described.least == 1 else 'start'}"]
    found = []
    count = described.bounded(known.wanted)
    if count != known.wanted:
        found.append(f"{counted(count)} instead of {known.wanted}")
    if known.version != group_version(fleet, name):
        found.append("other settings: its executors are replaced")
    return found


def _live(group: GroupStatus) -> int:
    return sum(each.state != "ended" for each in group.executors)


def counted(count: int) -> str:
    """Return a number of executors in words."""
    return f"{count} executor{'' if count == 1 else 's'}"
