"""The loads at which a policy is run whatever its goodput is: claims read its figures there."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.policies.cell import Group
from tests.bench.policies.fleets import SEPARATED
from tests.bench.policies.traffic import SESSIONS
from tests.bench.policies.variants import PREFIX_BLIND

#: Nearly idle, economical, busy, and overload for what has classes; shares of the fleet's capacity.
IDLE, ECONOMICAL, BUSY, OVERLOAD = 0.05, 0.6, 0.9, 1.2


def fixed_loads(group: Group, policy: str) -> AbstractSet[float]:
    """Return the loads at which claims read a policy (or ``policy/variant``) in a group."""
    name, _, variant = policy.partition("/")
    if name not in BUILTIN or group.fleet == SEPARATED:
        return frozenset()
    if variant == PREFIX_BLIND:
        in_target = {BUSY} if name == "slo_aware" else set()
        return in_target | ({ECONOMICAL} if group.traffic == SESSIONS else set())
    loads = {ECONOMICAL, BUSY}
    if group.traffic == SESSIONS:
        return loads
    if name == "fifo" and group.fleet == "E8":
        loads |= {OVERLOAD}  # nothing overtakes
    if name == "priority" and group.targets == "mixed":
        loads |= {IDLE, OVERLOAD}  # CRITICAL's first token
    return loads
