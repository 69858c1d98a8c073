"""Which instance of a side costs least to change."""

from __future__ import annotations

from collections.abc import Container, Sequence

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState


def on_side(instances: Sequence[Instance], role: InstanceRole) -> list[Instance]:
    """Return the READY instances of exactly this role that can take legs of split requests."""
    return [
        i
        for i in instances
        if i.role is role and i.state is InstanceState.READY and i.facts is not None and i.facts.kv_connector
    ]


def cheapest_change(instances: Sequence[Instance], leaves: InstanceRole, pinned: Container[str]) -> Instance | None:
    """Return the instance to change: of those that may, the one that runs least; None if none may.

    It has to be able to hand over to, or fetch from, one that stays in the role ``leaves``.  ``pinned``: ids of
    instances that an operator gave their role.
    """
    side = on_side(instances, leaves)
    able = [i for i in side if i.instance_id not in pinned and _has_counterpart(i, side)]
    return min(able, key=lambda i: (i.account.live, i.instance_id), default=None)


def _has_counterpart(instance: Instance, side: Sequence[Instance]) -> bool:
    key = _key(instance)
    return bool(key) and any(other is not instance and _key(other) == key for other in side)


def _key(instance: Instance) -> str:
    return instance.facts.compatibility_key if instance.facts is not None else ""
