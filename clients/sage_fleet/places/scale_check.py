"""Checks a number of executors that a group is to have."""

from __future__ import annotations

from sage_fleet.errors import FleetError
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.group import EXECUTORS_LIMIT


def check_scale(fleet: Fleet, group: str, count: int) -> None:
    """Raise FleetError for a group that the fleet does not have, and for a number beyond the group's bounds."""
    if group not in fleet.groups:
        raise FleetError(f"groups.{group}: there is no such group")
    described = fleet.groups[group]
    least, most = (described.least, described.most) if described.is_scaled else (0, EXECUTORS_LIMIT)
    if not least <= count <= most:
        raise FleetError(f"groups.{group}: {count} is not between {least} and {most}")
