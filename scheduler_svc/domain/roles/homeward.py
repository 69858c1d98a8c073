"""Which instances go back to the role of their executor: their own side misses what they can do."""

from __future__ import annotations

from collections.abc import Container, Sequence

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.roles.candidates import on_side, stands_in
from scheduler_svc.domain.roles.sides import SIDES

_WHOLE = (InstanceRole.GENERAL, InstanceRole.HYBRID)


def away(instances: Sequence[Instance], pinned: Container[str]) -> list[Instance]:
    """Return the instances whose role the scheduler changed by itself.

    ``pinned``: ids of instances that an operator gave their role.
    """
    return [
        each
        for each in instances
        if each.role_change is not None
        and each.instance_id not in pinned
        and each.role is not each.spec.role
        and {each.role, each.spec.role} <= SIDES
    ]


def missed(
    instances: Sequence[Instance], pinned: Container[str], *, to: InstanceRole, least_left: int
) -> list[Instance]:
    """Return the instances to go back to the role ``to``, because no READY one there serves all that they serve.

    Sorted by what they run, the least first.  ``least_left``: READY instances that stay on the side that they leave.
    One that leaves the decode side has to be replaced there: whole requests run on that side.
    """
    leaves = InstanceRole.DECODING if to is InstanceRole.PREFILLING else InstanceRole.PREFILLING
    beside = on_side(instances, leaves)
    if len(beside) <= least_left:
        return []
    own, back = on_side(instances, to), away(beside, pinned)
    found = [
        each
        for each in back
        if not any(stands_in(other, each) for other in own)
        and not any(_runs_whole(other, each) for other in instances)
        and (to is InstanceRole.DECODING or any(stands_in(other, each) for other in beside))
    ]
    return sorted(found, key=lambda each: (each.account.live, each.instance_id))


def _runs_whole(other: Instance, instance: Instance) -> bool:
    """Whether an instance that takes whole requests serves all that ``instance`` serves."""
    ours, theirs = instance.facts, other.facts
    if other.state is not InstanceState.READY or other.role not in _WHOLE or ours is None or theirs is None:
        return False
    return theirs.replaces(ours)
