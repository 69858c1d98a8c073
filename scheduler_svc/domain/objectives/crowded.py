"""Tells of a few instances in use, with plain numbers, that each is too crowded for one more request."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives import one_candidate
from scheduler_svc.domain.objectives.instances_in_use import InstancesInUse
from scheduler_svc.domain.objectives.target_shares import TargetShares

#: Instances up to which plain numbers, compiled, take less time than columns: 0.3 to 0.5 us for each, against some
#: 20 us of array operations whatever their number.
MOST_LOOKED_AT = 16


def all_crowded(
    demand: Demand,
    accounts: Sequence[Account],
    in_use: InstancesInUse,
    targets: TargetShares,
    now: float,
    *,
    headroom: float,
) -> bool:
    """Whether the request would meet its targets on some instance in use, and make others late on each such instance.

    It is False, too, where columns have to tell: of many instances, and of a request with cached tokens, a budget or a
    deadline.  ``headroom``: the share of its targets that a request may be predicted to use.
    """
    request = demand.request
    if not 1 < len(accounts) <= MOST_LOOKED_AT or demand.cached_tokens:
        return False  # a request that has to go to the only one is told the scores there
    if request.cost_budget is not None or request.target_at is not None:
        return False
    meets = False
    for account in accounts:
        if account.free_slots <= 0 or account.instance_id not in in_use:
            continue
        token_s = one_candidate.token_s(account, demand)
        first_s = one_candidate.first_step_s(account, now) + one_candidate.prefill_s(account, demand)
        if targets.of_one(first_s, token_s) > headroom:
            continue
        if token_s / account.tightest_token_s <= headroom:
            return False
        meets = True
    return meets
