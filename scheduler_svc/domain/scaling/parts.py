"""Which part of a model's load its instances of one role take."""

from __future__ import annotations

from collections.abc import Collection

from scheduler_svc.domain.instance_spec import InstanceRole


def parts_of(role: InstanceRole, roles: Collection[InstanceRole], split_share: float) -> tuple[float, float]:
    """Return the shares of all prompts and of all outputs that the instances of a role compute.

    ``roles``: those of all groups of the model.  ``split_share``: of recent placements that were split, [0, 1].  Of a
    role that ``is_asked``.
    Without instances for whole requests, decode instances run those that are not split; without these, the others.
    """
    general = InstanceRole.GENERAL in roles
    whole = 1 - split_share
    if role is InstanceRole.GENERAL:
        return whole, whole
    if role is InstanceRole.DECODING:
        return (0.0, split_share) if general else (whole, 1.0)
    if role is InstanceRole.PREFILLING:
        alone = not general and InstanceRole.DECODING not in roles
        return (1.0, 1.0) if alone else (split_share, 0.0)
    return 1.0, 1.0


def is_asked(role: InstanceRole, live: Collection[InstanceRole]) -> bool:
    """Return whether a model's requests go to instances of a role at all.

    ``live``: roles of its live instances.  Under one name those that embed get nothing while others generate, and
    those that would generate nothing while there are only such that embed.
    """
    if not live:
        return True
    generates = any(not each.embeds for each in live)
    return generates is not role.embeds
