"""Requests that wait while no READY instance can serve them, for too long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.placement.filters import cannot_serve
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.sleepers import comes_on_demand
from scheduler_svc.domain.waiting_request import WaitingRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """A request that is to end, because no READY instance could serve it for too long."""

    key: RequestKey
    model: str
    began_with: str  # the model that began its output, if only others are READY under that name; else empty


def orphans_of(pool: Pool, now: float, timeout_s: float) -> list[Orphan]:
    """Return the requests of one model that are to end now."""
    if pool.queue is None or pool.hopeful or pool.on_demand:
        pool.unserved_since(now)
        return []
    return [_orphan(waiting, pool) for waiting in _overdue(pool, now - timeout_s, now)]


def _overdue(pool: Pool, before: float, now: float) -> Iterator[WaitingRequest]:
    assert pool.queue is not None, "only pools with a queue have orphans"
    since = pool.unserved_since(now)
    if since is None:
        unserved = iter([*pool.queue.aside, *pool.queue.all_apart])
    elif since <= before:
        unserved = iter(pool.queue)
    else:
        return
    for waiting in unserved:
        own = waiting.unserved_since if since is None else max(since, waiting.enqueued_at)
        overdue = own is not None and own <= before and not waiting.request.wait_for_instance
        if overdue and not comes_on_demand(pool, waiting):
            yield waiting


def _orphan(waiting: WaitingRequest, pool: Pool) -> Orphan:
    return Orphan(
        key=waiting.request.key,
        model=pool.model,
        began_with=str(waiting.identity) if _only_others_are_ready(waiting, pool) else "",
    )


def _only_others_are_ready(waiting: WaitingRequest, pool: Pool) -> bool:
    """Return whether a READY instance could serve the request if it ran the model that began its output."""
    request = waiting.request
    total = request.total_tokens
    ready = (i.facts for i in pool.instances() if i.state is InstanceState.READY and i.facts is not None)
    return waiting.identity is not None and any(
        facts.identity_for(request.adapter) != waiting.identity
        for facts in ready
        if cannot_serve(facts, request, total) is None
    )
