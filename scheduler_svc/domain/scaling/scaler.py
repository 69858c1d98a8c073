"""Follows the load of each model with a number of instances."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.fleet.registry import Registry
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.request import Request
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances
from scheduler_svc.domain.scaling.group import Group
from scheduler_svc.domain.scaling.home_roles import group_at_home, group_of
from scheduler_svc.domain.scaling.settings import ScalingSettings
from scheduler_svc.domain.targets import Targets


class Scaler:
    """Keeps the desired number of instances of each model and role.

    ``look`` works it out anew; call it every ``interval_s``.  Models are those with instances and those that the
    settings name; what is kept of a model goes with it.
    """

    def __init__(self, settings: ScalingSettings, registry: Registry, targets: Callable[[Request], Targets]) -> None:
        """``targets``: those of a request."""
        self._settings = settings
        self._registry = registry
        self._targets = targets
        self._groups: dict[tuple[str, InstanceRole], Group] = {}
        self.desired: Sequence[DesiredInstances] = ()  # as of the last look, sorted by model and role

    def look(self, waiting_elsewhere: Mapping[str, int], now: float) -> Sequence[DesiredInstances]:
        """Work out the desired numbers.

        ``waiting_elsewhere``: requests by model that wait for an instance and are in no queue yet.
        """
        models = {p.model for p in self._registry.pools() if len(p)} | self._settings.models.keys()
        found: list[DesiredInstances] = []
        kept: dict[tuple[str, InstanceRole], Group] = {}
        for model in sorted(models):
            pool = self._registry.find_pool(model) or Pool(model)  # it takes no place in the registry by being declared
            instances = pool.instances()
            roles = {group_of(i.role) for i in instances} | {group_at_home(i) for i in instances}
            roles |= self._settings.models.get(model, {}).keys()
            for role in sorted(roles, key=lambda each: each.value):
                key = model, role
                group = kept[key] = self._groups.get(key) or Group(model, role, self._settings, now)
                found.append(group.look(pool, roles, self._targets, waiting_elsewhere.get(model, 0), now))
        self._groups = kept
        self.desired = tuple(found)
        return self.desired
