"""The loads at which a policy is run whatever its goodput is: claims read its figures there."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.policies.cell import Group
from tests.bench.policies.fleets import SEPARATED
from tests.bench.policies.traffic import BURSTY, SESSIONS, SHARES_PREFIXES

#: Nearly idle, economical, busy, and overload for what has classes; shares of the fleet's capacity.
IDLE, ECONOMICAL, BUSY, OVERLOAD = 0.05, 0.6, 0.9, 1.2


def fixed_loads(group: Group, policy: str) -> AbstractSet[float]:
    """Return the loads at which claims read a policy (or ``policy/variant``) in a group."""
    name, _, variant = policy.partition("/")
    if name not in BUILTIN or group.fleet == SEPARATED:
        return frozenset()
    loads: set[float] = set()
    if group.traffic in SHARES_PREFIXES and group.fleet == "E8" and name == "slo_aware":
        loads |= {BUSY}
    if group.traffic == SESSIONS or (group.fleet == "U8" and not variant):
        loads |= {ECONOMICAL}  # first tokens of sessions, cost
    if variant or group.traffic == SESSIONS:
        return loads
    if group.targets == "equal":
        return loads | ({ECONOMICAL, BUSY} if name == "slo_aware" else set())
    if name == "fifo" and group.fleet == "E8":
        loads |= {BUSY, OVERLOAD}  # nothing overtakes
    if name == "priority":
        loads |= {IDLE, BUSY, OVERLOAD}  # CRITICAL's first token
    if name == "adaptive" and group.traffic not in BURSTY:
        loads |= {BUSY}  # switches
    return loads
