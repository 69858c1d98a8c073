"""Decides whether the instances of a model can serve a request, now or ever."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.placement.filters import cannot_serve
from scheduler_svc.domain.request import Request
from scheduler_svc.domain.waiting_request import WaitingRequest

_REASONS_SHOWN = 4
_PRESENT = frozenset({InstanceState.READY, InstanceState.SUSPECT})


def all_can_serve(demand: Demand, pool: Pool) -> bool:
    """Return whether every READY instance can serve the request once it is free."""
    return not demand.constrained and pool.serves_alike(demand.request, demand.total_tokens)


def all_can_serve_a_leg(demand: Demand, pool: Pool) -> bool:
    """Return whether every READY instance that takes legs can serve the request once it is free."""
    return not demand.constrained and pool.legs_serve_alike(demand.request, demand.total_tokens)


def all_can_serve_waiting(waiting: WaitingRequest, pool: Pool) -> bool:
    """Return whether every READY instance can serve a waiting request.  Cheap: looks at no instance."""
    return waiting.plain and pool.serves_alike(waiting.request, waiting.total_tokens)


def why_refused(request: Request, pool: Pool | None) -> str | None:
    """Say why a new request is refused; None if it may wait.

    A request that asked to wait (``wait_for_instance``) is refused only where live instances exist and none of them
    can ever serve it.
    """
    if pool is not None and request.plain and pool.serves_alike(request, request.total_tokens):
        return None  # mostly so, and told without a look at the instances
    if pool is not None and any(instance.live for instance in pool.instances()):
        never = why_never_served(request, pool)
        if never is not None:
            return never
    return None if request.wait_for_instance else why_not_served_now(request, pool)


def why_never_served(request: Request, pool: Pool | None) -> str | None:
    """Say why no live instance can ever serve the request; None if one can, or may once its engine is up."""
    reasons = _refusals(request, (i for i in _instances(pool) if i.live))
    return None if reasons is None else _in_words(reasons) or f"no live instance serves {request.model!r}"


def why_not_served_now(request: Request, pool: Pool | None) -> str | None:
    """Say why no READY instance serves the request; None if one does, full or not.

    A SUSPECT instance counts: most are back, or lost, within the reconnect grace.  So does one that gets its turn on
    its device when requests wait for it.
    """
    reasons = _refusals(request, (i for i in _instances(pool) if i.state in _PRESENT or i.on_demand))
    if reasons:
        return _in_words(reasons)
    if reasons is None:
        return None
    states = pool.states() if pool is not None else "none registered"
    return f"no instance of {request.model!r} is ready ({states})"


def serves(instance: Instance, request: Request) -> bool:
    """Return whether an engine that is known can serve the request once it is free."""
    return instance.facts is not None and _refusal(instance, instance.facts, request, request.total_tokens) is None


def _instances(pool: Pool | None) -> list[Instance]:
    return pool.instances() if pool is not None else []


def _refusals(request: Request, instances: Iterable[Instance]) -> list[str] | None:
    """Return why each instance does not serve the request; None as soon as one does, or has no facts yet."""
    total = request.total_tokens
    reasons: list[str] = []
    for instance in instances:
        if instance.facts is None:
            return None
        reason = _refusal(instance, instance.facts, request, total)
        if reason is None:
            return None
        reasons.append(f"{instance.instance_id} {reason}")
    return reasons


def _in_words(reasons: list[str]) -> str:
    """Return the first four reasons; empty if there are none."""
    shown = "; ".join(reasons[:_REASONS_SHOWN])
    more = len(reasons) - _REASONS_SHOWN
    return shown + (f"; and {more} more" if more > 0 else "")


def _refusal(instance: Instance, facts: EngineFacts, request: Request, total_tokens: int) -> str | None:
    if instance.role.embeds and request.embedding is None:
        return "does not generate"
    if request.adapter in facts.run_time.loadable:  # the request waits until it is loaded
        facts = replace(facts, adapters=facts.adapters | {request.adapter})
    refusal = cannot_serve(facts, request, total_tokens)
    return refusal[1] if refusal is not None else None
