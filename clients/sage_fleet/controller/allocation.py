"""Spreads the instances that a model needs over the groups that serve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from sage_client import InstanceRole
from sage_fleet.scheduler_settings import scaled_role
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.group import GroupSection


class Desired(Protocol):
    """Number of instances that a model needs in one role, as the scheduler says."""

    @property
    def model(self) -> str:
        """The name that requests ask for."""
        ...

    @property
    def role(self) -> InstanceRole:
        """The role of the instances."""
        ...

    @property
    def desired(self) -> int:
        """The number of instances."""
        ...

    @property
    def remove_first(self) -> Sequence[str]:
        """The instance ids of those that had better go when there are too many, the first one first."""
        ...


def counts_for(fleet: Fleet, desired: Iterable[Desired]) -> dict[str, int]:
    """Return how many executors each group with ``min`` and ``max`` is to have.

    A model's groups of one role share what it needs: those with a fixed count give what they have, every other group
    has its minimum, and what is missing goes to the cheapest per hour first.  A group is left out where nothing is said
    of its model and role.
    """
    counts: dict[str, int] = {}
    for each in desired:
        own = {name: group for name, group in fleet.groups.items() if _serves(group, each)}
        counts |= _spread(own, each.desired)
    return counts


def _serves(group: GroupSection, desired: Desired) -> bool:
    return group.name_in_requests == desired.model and scaled_role(group) == desired.role.value


def _spread(groups: Mapping[str, GroupSection], desired: int) -> dict[str, int]:
    missing = desired - sum(group.least for group in groups.values())
    counts: dict[str, int] = {}
    scaled = {name: group for name, group in groups.items() if group.is_scaled}
    for name, group in sorted(scaled.items(), key=lambda item: (item[1].price_per_hour, item[0])):
        more = min(max(missing, 0), group.most - group.least)
        counts[name] = group.least + more
        missing -= more
    return counts
