"""The order in which a run reaches its goals: a run that is stopped has the answers that matter most."""

from __future__ import annotations

from sage_simulator.oracle import ORACLE
from scheduler_svc.domain.policies.baselines.table import BASELINES
from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.policies.cell import Group
from tests.bench.policies.fleets import SEPARATED
from tests.bench.policies.traffic import BURSTY, RECORDED, SESSIONS, SHARES_PREFIXES
from tests.bench.policies.variants import PREFIX_BLIND

#: Baselines that claims name, or that are the best of their kind.
MAIN_BASELINES = ("least_requests", "least_predicted_work", "lmetric")
#: Orderings are compared with what is promised of the order of waiting requests.
ORDERINGS = ("shortest_prompt", "shortest_job", "earliest_deadline")

USUAL_SLOTS, USUAL_TARGETS = 128, "mixed"
_MAIN_TRAFFIC = (*RECORDED, *BURSTY)


def stage(group: Group, policy: str, seed: int, *, search: bool) -> int:
    """Return when something is to be known, the lowest first.

    ``search``: the goodput; otherwise the figures at fixed loads.

    0. What the claims compare, with the usual slots, by each seed in turn.
    1. The goodput of the same policies with other slots, by one seed.
    2. The oracle and all routers with the usual slots.
    3. Other slots by the other seeds.
    4. Everything else.
    """
    usual_traffic = group.traffic in _MAIN_TRAFFIC and group.fleet != SEPARATED and group.targets == USUAL_TARGETS
    if group.slots == USUAL_SLOTS:
        if _judged(group, policy, search=search):
            return 0
        return 2 if usual_traffic and (policy == ORACLE or policy in BASELINES) else 4
    if usual_traffic and search and policy in (*BUILTIN, *MAIN_BASELINES):
        return 1 if seed == 1 else 3
    return 4


def _judged(group: Group, policy: str, *, search: bool) -> bool:
    """Whether a claim compares the policy here; the group has the usual slots."""
    name, _, variant = policy.partition("/")
    if group.targets != USUAL_TARGETS:
        return policy == "slo_aware" and not search and group.traffic in _MAIN_TRAFFIC
    if group.fleet == SEPARATED:
        return name == "slo_aware" and group.traffic in _MAIN_TRAFFIC
    if group.traffic in SHARES_PREFIXES and (name == "slo_aware" or (not search and group.traffic == SESSIONS)):
        return name in BUILTIN
    if group.traffic not in _MAIN_TRAFFIC:
        return False
    return variant != PREFIX_BLIND and policy in (*BUILTIN, *MAIN_BASELINES)
