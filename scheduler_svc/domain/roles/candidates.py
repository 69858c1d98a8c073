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

    One that stays in the role ``leaves`` has to be able to hand over to it, or fetch from it, and to serve every
    request that it can serve.  ``pinned``: ids of instances that an operator gave their role.
    """
    side = on_side(instances, leaves)
    able = [i for i in side if i.instance_id not in pinned and any(stands_in(other, i) for other in side)]
    return min(able, key=lambda i: (i.account.live, i.instance_id), default=None)


def stands_in(other: Instance, instance: Instance) -> bool:
    """Whether ``other`` hands KV over as ``instance`` does, and serves every request that it serves."""
    ours, theirs = instance.facts, other.facts
    if other is instance or ours is None or theirs is None or not ours.compatibility_key:
        return False
    return ours.compatibility_key == theirs.compatibility_key and theirs.replaces(ours)
