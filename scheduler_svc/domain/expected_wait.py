"""Predicts how long a request waits in its model's queue."""

from __future__ import annotations

from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance_state import STARTING, InstanceState
from scheduler_svc.domain.request import Request

UNKNOWN_WAIT_S = 30.0
"""Expected wait for a model without a READY instance, of which no start was measured yet."""


def expected_wait(pool: Pool | None, now: float) -> float:
    """Predict seconds until a request that comes now is placed, from the rate at which the model's queue drains.

    The prediction assumes that all requests run whole; split ones may be placed sooner.
    """
    if pool is None or not pool.accounts:
        return start_wait_s(pool, now)
    waiting = pool.queue.placeable if pool.queue is not None else 0
    if not waiting and any(a.prompt_limit > 0 for a in pool.accounts):
        return 0.0
    return (waiting + 1) * pool.placement_s(now)


def start_wait_s(pool: Pool | None, now: float) -> float:
    """Predict seconds until a request that comes now is placed, where no instance is READY.

    That is what waking one took the last time, where one sleeps; else what the start that is furthest still takes, or a
    whole one.  Then the requests that wait already take their turns in the slots that the last instances had.
    """
    left_s = _until_ready_s(pool, now) if pool is not None else None
    if pool is None or left_s is None:
        return UNKNOWN_WAIT_S
    if pool.queue is None or not pool.last_slots or not pool.knows_service:
        return left_s
    return left_s + pool.queue.placeable // pool.last_slots * pool.service_s(now)


def _until_ready_s(pool: Pool, now: float) -> float | None:
    """Predict seconds until an instance is READY; None if nothing like that was measured."""
    asleep = (i for i in pool.instances() if i.state is InstanceState.SLEEPING or i.on_demand)
    if wakes := [i.wake_s for i in asleep if i.wake_s is not None]:
        return min(wakes)
    start_s = pool.starts.mean_s
    begun = [i.start_began_at for i in pool.instances() if i.state in STARTING]
    return max(0.0, start_s - (now - min(begun))) if begun and start_s is not None else start_s


def expected_wait_of(pool: Pool | None, request: Request, now: float) -> float:
    """Predict seconds until this request is placed, new or waiting as the youngest, by class and tenant."""
    wait_s = predicted_wait(pool, request, now)
    return wait_s if wait_s is not None else max(expected_wait(pool, now), turns_s(pool, request, now))


def predicted_wait(pool: Pool | None, request: Request, now: float) -> float | None:
    """Predict seconds until a request is placed that is new, or waits as the youngest of its class and tenant.

    By its class, its tenant's share and running limit, and the rate at which the queue drains.  None where nothing is
    known: no instance is READY, or no request has ended yet.
    """
    if pool is None or pool.queue is None or not pool.accounts or not pool.knows_service:
        return None
    queue = pool.queue
    itself = 1 if request.key in queue else 0
    own_s = turns_s(pool, request, now)
    if queue.placeable <= itself and any(a.prompt_limit > 0 for a in pool.accounts):
        return own_s
    ahead = max(0, queue.order.ahead_of_new(request.priority, request.key.tenant) - itself)
    return max(own_s, pool.drain.wait_s(ahead, pool.placement_s(now), request.priority, now))


def turns_s(pool: Pool | None, request: Request, now: float) -> float:
    """Predict seconds until the running limit of a request's tenant lets it run; 0 without one."""
    if pool is None or pool.queue is None:
        return 0.0
    return pool.queue.turns_of_tenant(request) * pool.service_s(now)


def least_wait(pool: Pool, request: Request, now: float) -> float:
    """Predict seconds that a new request waits at least: those surely ahead of it need more slots than are free.

    What keeps out prompts or fills KV caches may end at any moment, so it counts for nothing.
    """
    assert pool.queue is not None
    accounts = {a.instance_id: a for side in (pool.accounts, pool.decoders) for a in side}.values()
    slots = sum(a.max_running for a in accounts)
    free = sum(max(0, a.free_slots) for a in accounts)
    return max(0, pool.queue.order.surely_ahead_of_new(request) - free) * pool.service_s(now) / slots
