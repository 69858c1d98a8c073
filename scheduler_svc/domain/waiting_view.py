"""Where a waiting request stands, and why it waits."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.placement.filters import no_capacity_reason
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.split_planner import SplitPlan
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.sleepers import able_asleep
from scheduler_svc.domain.waiting_request import WaitingRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingView:
    """A waiting request as operators see it."""

    position: int  # 1 is next
    ordering_key: str  # what it is ordered by now, in words
    because: str  # why it waits, in words


def why_not_at_once(pool: Pool | None) -> str:
    """Say what a new request of this model would wait for; empty if nothing.

    Cheap: called for every request.
    """
    if pool is None or not pool.accounts:
        return "no instance is ready"
    if pool.queue:
        return f"{len(pool.queue)} others wait"
    accounts = pool.accounts
    if not any(account.free_slots > 0 for account in accounts):
        return f"no slot is free on the instances that run whole requests ({len(accounts)})"
    if all(account.prefill_full for account in accounts):
        return f"other prompts are ahead on all instances that run whole requests ({len(accounts)})"
    return ""


def why_waiting(
    waiting: WaitingRequest, offer: Offer, plan: SplitPlan | None, pool: Pool, queue: ModelQueue, now: float
) -> str:
    """Say the main reason why a request waits.

    For a request that should be split: why it is not split, and why it does not run whole either.
    """
    if not pool.accounts:
        return f"no READY instance of {pool.model!r}: {pool.states()}{_turns(pool)}"
    if (use := queue.at_running_limit(waiting)) is not None:
        return f"its tenant runs {use.running} requests, its running_limit"
    if waiting.alone:
        return _no_place(waiting, offer, pool, only_able=True) or _apart(waiting, pool)
    kept = pool.isolation
    if kept.account is not None and kept.key is not None and list(offer.able) == [kept.account]:
        whom = kept.key.told_to(waiting.request.key.tenant)
        return f"{kept.account.instance_id} is kept for {whom}, which is quarantined and runs alone"
    if plan is None or not plan.phase.split:
        return _no_place(waiting, offer, pool) or _behind(waiting, pool, queue, now)
    if plan.split is not None:
        return _behind(waiting, pool, queue, now)
    head = queue.head(now)
    keeps_its_turn = "" if head is None or head is waiting else f"it keeps its turn behind {_named(head, waiting)}"
    whole = _no_place(waiting, offer, pool) or keeps_its_turn or _behind(waiting, pool, queue, now)
    return f"should be split: {plan.fallback}; to run whole: {whole}"


def _turns(pool: Pool) -> str:
    """Say which instance gets its turn on its device because requests wait; empty if none does."""
    for each in pool.instances():
        if each.on_demand and each.spec.device_group is not None:
            return f"; {each.instance_id} gets its turn on {each.spec.device_group.name}"
    return ""


def _apart(waiting: WaitingRequest, pool: Pool) -> str:
    """Say what a quarantined request waits for: an instance that runs nothing else."""
    account, key = pool.isolation.account, pool.isolation.key
    if account is None or key is None:
        return "quarantined, to run alone; a scheduling pass is due"
    if key != waiting.request.key:
        first = key.told_to(waiting.request.key.tenant)
        return f"quarantined, to run alone; {first} goes first, on {account.instance_id}"
    left = len(account.reservations)
    return f"quarantined, to run alone on {account.instance_id}, which first finishes {left} others"


def _no_place(waiting: WaitingRequest, offer: Offer, pool: Pool, *, only_able: bool = False) -> str:
    """Say why a request cannot run whole now; empty if it can, or if it could and ``only_able`` is asked."""
    if not offer.able:
        instance_id, _, reason = offer.unable[-1]
        asleep = able_asleep(pool, waiting)
        hope = f"; {asleep[0].instance_id} can, and sleeps" if asleep else ""
        return f"no READY instance can serve it; {instance_id} {reason}{hope}"
    return "" if only_able or offer.with_capacity else _no_capacity(offer)


def _behind(waiting: WaitingRequest, pool: Pool, queue: ModelQueue, now: float) -> str:
    head = queue.head(now)
    if head is waiting:
        if pool.changed or queue.changed:
            return "it is next; a scheduling pass is due"
        return "it is next; it " + (waiting.waits_for or "waits for an instance that is full for now")
    claim = pool.claim
    if head is not None and pool.claimant is head and claim is not None:
        return f"{_named(head, waiting)} is ahead and claims capacity on {claim.account.instance_id}"
    return "others are ahead of it"


def _named(head: WaitingRequest, waiting: WaitingRequest) -> str:
    return head.request.key.told_to(waiting.request.key.tenant)


def _no_capacity(offer: Offer) -> str:
    demand = offer.demand
    reasons = [
        no_capacity_reason(a.free_slots, a.free_tokens, a.full_prefill_s, demand.tokens, demand.must_leave_reserve)
        for a in offer.able
    ]
    names = {name for name, _ in reasons}
    n = len(reasons)
    every = f"all {n} instances" if n > 1 else f"instance {offer.able[0].instance_id}"
    if names == {"slots"}:
        return f"{every} full: no slot free"
    if names == {"kv_tokens"}:
        most = max(a.free_tokens for a in offer.able)
        return f"{every} full: {demand.tokens} KV tokens needed, at most {max(0, most)} free"
    if names == {"prefill"}:
        least = min(a.full_prefill_s for a in offer.able)
        return f"{every} full: prompts of {least:.2f} s or more are ahead"
    if names <= {"slots", "reserved_slot"}:
        return f"{every} full but for what is reserved for CRITICAL"
    return f"{every} full: " + "; ".join(sorted({reason for _, reason in reasons}))
