"""Makes a usage record of a request that ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scheduler_svc.control.journal.usage import UsageRecord
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.domain.request import Priority

_PRIORITIES = {each: each.name.lower() for each in Priority}


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedRequest:
    """A request, and when it ended, in seconds on the control clock."""

    live: LiveRequest
    ended_at: float


def usage_of(ended: EndedRequest, since_1970_s: float, reason_of: Callable[[Outcome], str]) -> UsageRecord:
    """Return the record.  ``since_1970_s``: what turns the control clock into seconds since 1970."""
    live = ended.live
    request, outcome = live.request, live.outcome
    finished = outcome if isinstance(outcome, Finished) else None
    return UsageRecord(
        tenant=request.key.tenant,
        request_id=request.key.request_id,
        model=request.model,
        adapter=request.adapter,
        priority=_PRIORITIES[request.priority],
        detached=live.detached,
        prompt_tokens=request.prompt_tokens,
        cached_prompt_tokens=finished.cached_prompt_tokens if finished is not None else 0,
        output_tokens=len(live.output),
        # Microseconds, as timestamps on the wire: who asks for records since this one's end gets it.
        arrived_at=round(request.arrived_at + since_1970_s, 6),
        ended_at=round(ended.ended_at + since_1970_s, 6),
        waited_s=_since(request.arrived_at, live.first_assigned_at),
        first_token_s=_since(request.arrived_at, live.first_token_at),
        attempts=live.attempts,
        cost=max(live.cost, finished.cost if finished is not None else 0.0),
        end=live.state.value,
        reason=reason_of(outcome) if outcome is not None else "",
        adopted=live.adopted is not None,
    )


def _since(arrived_at: float, at: float | None) -> float | None:
    return None if at is None else at - arrived_at
