"""The roles that executors were started with, where the scheduler changed them since by itself.

Whoever starts and drains executors knows them by the role they were started with.  So desired numbers are of these:
a change of a role moves an instance from one group's need to another's, and leaves both desired numbers as they are.
"""

from __future__ import annotations

from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.scaling.settings import Bounds


def group_of(role: InstanceRole) -> InstanceRole:
    """Return the role whose group an instance of this role belongs to: GENERAL stands for HYBRID, too."""
    return InstanceRole.GENERAL if role is InstanceRole.HYBRID else role


def group_at_home(instance: Instance) -> InstanceRole:
    """Return the group that an instance counts for: that of its executor, where the scheduler changed its role."""
    return group_of(instance.spec.role if instance.role_change is not None else instance.role)


def moved_bounds(bounds: Bounds, moved: int) -> Bounds:
    """Return the bounds of the instances that work in a role, ``moved`` more of which came than went.

    A role keeps one instance at least where its bounds ask for any.
    """
    most = max(1, bounds.most + moved)
    return Bounds(least=min(most, max(min(bounds.least, 1), bounds.least + moved)), most=most)


def moved_in_words(moved: int) -> str:
    """Say how many instances came or went; empty for none."""
    if not moved:
        return ""
    return f"; automatic roles {'lent it' if moved > 0 else 'took from it'} {abs(moved)}"
