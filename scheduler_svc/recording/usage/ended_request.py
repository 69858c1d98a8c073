"""Makes a usage record of a request that ended."""

from __future__ import annotations

from collections.abc import Callable

from scheduler_svc.control.journal.usage import UsageRecord
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.domain.request import Priority

_PRIORITIES = {each: each.name.lower() for each in Priority}


def usage_of(live: LiveRequest, since_1970_s: float, reason_of: Callable[[Outcome], str]) -> UsageRecord:
    """Return the record of a request that has ended under this scheduler.

    ``since_1970_s``: what turns the control clock into seconds since 1970.  One is made for each request, so its fields
    are given in their order, at a third of the time that it takes by their names.
    """
    request, outcome, placed_at, token_at = live.request, live.outcome, live.first_assigned_at, live.first_token_at
    tenant, request_id = request.key
    arrived_at, ended_at = request.arrived_at, live.ended_at
    assert ended_at is not None, "it has ended"
    cached_tokens, cost = 0, live.cost
    if isinstance(outcome, Finished):
        cached_tokens, cost = outcome.cached_prompt_tokens, max(cost, outcome.cost)
    return UsageRecord(
        tenant,
        request_id,
        request.model,
        request.adapter,
        _PRIORITIES[request.priority],
        live.detached,
        request.prompt_tokens,
        cached_tokens,
        len(live.output),
        _in_microseconds(arrived_at + since_1970_s),
        _in_microseconds(ended_at + since_1970_s),
        None if placed_at is None else placed_at - arrived_at,
        None if token_at is None else token_at - arrived_at,
        live.attempts,
        cost,
        live.state.value,
        reason_of(outcome) if outcome is not None else "",
        live.adopted is not None,
    )


def _in_microseconds(seconds: float) -> float:
    """Round to microseconds, as timestamps on the wire are: who asks for records since this one's end gets it."""
    return int(seconds * 1e6 + 0.5) / 1e6
