"""Requests that only an instance can serve that sleeps, and which instances these are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

from scheduler_svc.domain.device_groups.member import ModelDemand
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import STARTING, InstanceState
from scheduler_svc.domain.servability import serves
from scheduler_svc.domain.waiting_request import WaitingRequest

LOOKS = 64
"""Requests of a model that are compared with instances at most, those that wait longest first."""

ALIKE_LOOKS = 16
"""Of these, requests that need much the same: many that nobody can serve hide no other ones."""

SEEN = 4_096
"""Requests of a model that are gone through at most."""

#: Whole requests run on instances of the lowest rank that is READY; the other roles have 0.
_RANKS = {InstanceRole.DECODING: 1, InstanceRole.PREFILLING: 2}


def wanted_sleepers(pool: Pool) -> list[list[Instance]]:
    """Return the SLEEPING instances that can serve what nobody else serves soon, a list for each kind of request.

    An instance that starts keeps nobody asleep: waking an engine is quicker than starting one.
    """
    if not pool.queue or not any(each.state is InstanceState.SLEEPING for each in pool.instances()):
        return []
    soon = [each for each in pool.instances() if each.state is InstanceState.SUSPECT]
    able = (able_asleep(pool, waiting) for waiting in _unserved(pool, soon))
    found = {tuple(each.instance_id for each in those): those for those in able if those}
    return list(found.values())


def able_asleep(pool: Pool, waiting: WaitingRequest) -> list[Instance]:
    """Return the SLEEPING instances that can serve a request, sorted by id."""
    rank = _rank_in_use(pool)
    asleep = (each for each in pool.instances() if each.state is InstanceState.SLEEPING)
    return [each for each in asleep if _could_serve(each, waiting, rank)]


def missed(pool: Pool, instance: Instance, woken: Container[str], now: float) -> ModelDemand:
    """Return the requests that wait for this instance, because those that are READY cannot serve them.

    ``woken``: ids of instances that sleep and were told to be awake, so that they serve soon. So do those that start: a
    turn on a device is taken from another model.
    """
    found = ModelDemand()
    if not pool.accounts or not pool.queue:
        return found
    rank, soon = _rank_in_use(pool), [each for each in pool.instances() if _may_serve_soon(each, woken)]
    for waiting in _unserved(pool, soon):
        if _could_serve(instance, waiting, rank):
            waited_s = max(found.waited_s, now - waiting.enqueued_at)
            found = replace(found, waiting=found.waiting + 1, waited_s=waited_s)
    return found


def comes_on_demand(pool: Pool, waiting: WaitingRequest) -> bool:
    """Return whether an instance gets its turn on its device for this request; not one that failed to start."""
    rank = _rank_in_use(pool)
    hoped = (each for each in pool.instances() if each.on_demand and not each.failed_starts)
    return any(_could_serve(each, waiting, rank) for each in hoped)


def _unserved(pool: Pool, soon: Sequence[Instance]) -> Iterator[WaitingRequest]:
    """Yield the requests that no READY instance serves, and none of those that may be READY ``soon``.

    A STALLED instance is no hope: nobody knows when it goes on.
    """
    queue = pool.queue
    assert queue is not None, "only pools with a queue are looked at"
    apart = (each for each in queue.all_apart if each.unserved_since is not None)
    rank = _rank_in_use(pool)
    for waiting in _looked_at(chain(queue.aside, apart) if pool.accounts else queue):
        if not any(each.facts is None or _could_serve(each, waiting, rank) for each in soon):
            yield waiting


def _looked_at(requests: Iterable[WaitingRequest]) -> Iterator[WaitingRequest]:
    """Yield the first ``LOOKS`` requests, and of those that need much the same the first ``ALIKE_LOOKS``."""
    alike: Counter[tuple[object, ...]] = Counter()
    looks = 0
    for waiting in islice(requests, SEEN):
        request = waiting.request
        kind = (request.adapter, waiting.identity, request.total_tokens.bit_length())
        alike[kind] += 1
        if alike[kind] <= ALIKE_LOOKS:
            yield waiting
            looks += 1
            if looks == LOOKS:
                return


def _may_serve_soon(instance: Instance, woken: Container[str]) -> bool:
    """Return whether an instance may be READY soon without a further order."""
    if instance.state in STARTING:
        return instance.has_place and not instance.failed_starts
    return instance.state is InstanceState.SUSPECT or (
        instance.state is InstanceState.SLEEPING and instance.instance_id in woken
    )


def _could_serve(instance: Instance, waiting: WaitingRequest, rank: int) -> bool:
    """Return whether an instance would serve a request, whole, once it is READY.  ``rank``: in use."""
    if instance.facts is None or _RANKS.get(instance.role, 0) > rank or not serves(instance, waiting.request):
        return False
    return waiting.identity in (None, instance.facts.identity_for(waiting.request.adapter))


def _rank_in_use(pool: Pool) -> int:
    """Return the rank of the instances that take whole requests now; the highest where none is READY."""
    ready = (each for each in pool.instances() if each.state is InstanceState.READY)
    return min((_RANKS.get(each.role, 0) for each in ready), default=max(_RANKS.values()))
