"""The order in which a run reaches its goals: a run that is stopped has the answers that matter most."""

from __future__ import annotations

from enum import IntEnum

from sage_simulator.oracle import ORACLE
from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.policies.cell import Group
from tests.bench.policies.fleets import SEPARATED
from tests.bench.policies.traffic import BURSTY, RECORDED, SESSIONS, SHARES_PREFIXES
from tests.bench.policies.variants import policy_of

#: Baselines that claims name, or that are the best of their kind, by fleet: where all engines are alike, knowing their
#: speeds is worth nothing.
_NAMED = {"E8": ("least_requests", "lmetric"), "U8": ("least_requests", "least_predicted_work")}
MAIN_BASELINES = tuple(dict.fromkeys(name for names in _NAMED.values() for name in names))
#: Orderings are compared with what is promised of the order of waiting requests.
ORDERINGS = ("shortest_prompt", "shortest_job", "earliest_deadline")

USUAL_SLOTS, USUAL_TARGETS = 128, "mixed"
_MAIN_TRAFFIC = (*RECORDED, *BURSTY)


class Stage(IntEnum):
    """When something is to be known."""

    CLAIMS = 0  # what the claims compare, with the usual slots, by each seed in turn
    COMPARED = 1  # the oracle, and ``slo_aware`` and what it is compared with, with other slots, by one seed
    FURTHER = 2  # equal targets, and the other built-in policies with other slots, by one seed
    OTHER_SEEDS = 3  # those two by the other seeds
    ROUTERS = 4  # all policies for comparison with the usual slots
    REST = 5


def stage(group: Group, policy: str, seed: int, *, search: bool) -> Stage:
    """Return when a policy's goodput is to be known (``search``), or its figures at fixed loads."""
    if group.traffic in _MAIN_TRAFFIC and group.fleet != SEPARATED and group.targets == USUAL_TARGETS:
        found = _of_main(group, policy, search=search)
    else:
        found = _of_special(group, policy, search=search)
    return Stage.OTHER_SEEDS if found in (Stage.COMPARED, Stage.FURTHER) and seed > 1 else found


def _of_main(group: Group, policy: str, *, search: bool) -> Stage:
    """Return the stage on the main loads, whole requests, the usual targets."""
    compared = policy in ("fifo", "slo_aware", *_NAMED.get(group.fleet, ()))
    if group.slots != USUAL_SLOTS:
        if not search:
            return Stage.REST
        return Stage.COMPARED if compared else Stage.FURTHER if policy in BUILTIN else Stage.REST
    if compared or policy_of(policy) in BUILTIN:
        return Stage.CLAIMS
    return Stage.COMPARED if policy == ORACLE else Stage.ROUTERS


def _of_special(group: Group, policy: str, *, search: bool) -> Stage:
    """Return the stage where requests are split, prompts begin alike or all targets are equal."""
    name = policy_of(policy)
    if group.slots != USUAL_SLOTS or name not in BUILTIN:
        return Stage.REST
    if group.fleet == SEPARATED:
        judged = name == "slo_aware" and group.traffic in _MAIN_TRAFFIC and group.targets == USUAL_TARGETS
    elif group.targets != USUAL_TARGETS:
        equal = policy == "slo_aware" and group.traffic in _MAIN_TRAFFIC and not search
        return Stage.FURTHER if equal else Stage.REST
    elif group.traffic == SESSIONS and not search:
        judged = group.fleet == "E8"
    else:
        judged = name == "slo_aware" and group.traffic in SHARES_PREFIXES
    return Stage.CLAIMS if judged else Stage.REST
