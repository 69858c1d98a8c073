"""Follows the pressures of prefill and decode with the roles of instances, for all models."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType

from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.fleet.registry import Registry
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.domain.roles.homeward import away
from scheduler_svc.domain.roles.model_roles import ModelRoles
from scheduler_svc.domain.roles.pressures import pressures
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.roles.side import Side
from scheduler_svc.domain.roles.sides import SIDES

KEPT = 16
"""How many of the latest changes are kept."""


class RoleBalancer:
    """Decides changes of roles, at most one for each model and look; call ``look`` every ``interval_s``."""

    def __init__(self, settings: RoleSettings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._models: dict[str, ModelRoles] = {}
        self._sides: dict[str, tuple[Side, Side]] = {}
        self._recent: deque[RoleChange] = deque(maxlen=KEPT)

    @property
    def sides(self) -> Mapping[str, tuple[Side, Side]]:
        """The prefill and the decode side of each model that has instances of these roles, as of the last look."""
        return MappingProxyType(self._sides)

    @property
    def recent(self) -> Sequence[RoleChange]:
        """The latest changes of all models, newest first."""
        return tuple(self._recent)

    def look(self, pinned: Container[str], now: float) -> list[RoleChange]:
        """Return the changes to make now.  ``pinned``: ids of instances that an operator gave their role."""
        kept: dict[str, ModelRoles] = {}
        self._sides = {}
        changes: list[RoleChange] = []
        for pool in self._registry.pools():
            if not _has_sides(pool):
                continue
            roles = kept[pool.model] = self._models.get(pool.model) or ModelRoles(pool.model, self._settings)
            prefill, decode = self._sides[pool.model] = pressures(pool, now)
            change = roles.look(prefill, decode, pool.instances(), pinned, now)
            if change is not None:
                changes.append(change)
                self._recent.appendleft(change)
        self._models = kept
        return changes

    def rest(self, pinned: Container[str], now: float) -> list[RoleChange]:
        """Forget the pressures: requests are not split now.  Return the changes that bring each instance home."""
        self._models, self._sides = {}, {}
        changes = [_home(each, now) for pool in self._registry.pools() for each in away(pool.instances(), pinned)]
        self._recent.extendleft(changes)
        return changes


def _home(instance: Instance, now: float) -> RoleChange:
    return RoleChange(
        model=instance.spec.model,
        instance_id=instance.instance_id,
        before=instance.role,
        role=instance.spec.role,
        cause=Cause.SPLITTING_OFF,
        reason="requests are not split any more, so it has the role of its executor again",
        at=now,
    )


def _has_sides(pool: Pool) -> bool:
    return any(i.role in SIDES for i in pool.instances())
