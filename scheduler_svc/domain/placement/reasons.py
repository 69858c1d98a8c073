"""Why a request goes where it goes: the reasons of a decision, in words."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.split_planner import SplitPlan
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.waiting_request import WaitingRequest

ADOPTED = "an earlier scheduler placed it here, where it runs"
_WHOLE = "runs whole on one instance"
_SPECIALISTS = "no instance for whole requests is ready: runs whole on one meant for legs of split requests"
_RESERVE = "takes the slot that is reserved for CRITICAL"


def order_of(waiting: WaitingRequest, policy: Policy, now: float) -> str:
    """Describe the request's place in the order now: it cannot be worked out once the request runs."""
    return f"ordered by {policy.ordering.describe(waiting, now)}"


def why_whole(plan: SplitPlan | None) -> str:
    """Say why a request runs whole; ``plan`` is None while splitting is off."""
    if plan is None:
        return _WHOLE
    return f"it cannot be split now ({plan.phase.reason})" if plan.phase.split else plan.phase.reason


def cached_at(demand: Demand, account: Account) -> tuple[str, ...]:
    """Say what an instance's prefix cache is believed to hold of the prompt; nothing if it holds none."""
    tokens = demand.cached_tokens.get(account.instance_id, 0) if demand.cached_tokens else 0
    if not tokens:
        return ()
    return (f"{account.instance_id} is believed to hold {tokens} of {demand.prompt_tokens} prompt tokens in its cache",)


def unusual_at(account: Account, demand: Demand, context: PassContext, plan: SplitPlan | None) -> tuple[str, ...]:
    """Say what is unusual about running the request on this instance.  Call it before capacity is reserved there."""
    policy = context.policy
    remarks: tuple[str, ...] = ()
    if plan is None and context.pool.specialists:
        remarks += (_SPECIALISTS,)
    if policy.engine_classes and account.facts is not None and not account.facts.supports_priority:
        remarks += ("its engine has no priorities: the class orders the queue only",)
    if policy.governed_by:
        remarks += (f"{policy.governed_by} follows {policy.name}",)
    if policy.objective.reserved_slots and not demand.must_leave_reserve and account.only_reserve_left:
        remarks += (_RESERVE,)
    return remarks


def changed_roles(pool: Pool, accounts: Sequence[Account], now: float) -> tuple[str, ...]:
    """Say which of the instances that were chosen the scheduler gave its role by itself, and why."""
    changes = (pool.get(account.instance_id).role_change for account in accounts)
    return tuple(
        f"{each.instance_id} became {each.role.value} {now - each.at:.0f} s ago: {each.reason}"
        for each in changes
        if each is not None
    )
