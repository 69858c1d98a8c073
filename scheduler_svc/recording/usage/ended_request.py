"""Makes a usage record of a request that ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
    """Return the record, of all choices.  ``since_1970_s``: what turns the control clock into seconds since 1970."""
    live, members = ended.live, ended.live.members
    request, outcome = live.request, live.whole_outcome
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
        output_tokens=sum(len(each.output) for each in members),
        # Microseconds, as timestamps on the wire: who asks for records since this one's end gets it.
        arrived_at=round(request.arrived_at + since_1970_s, 6),
        ended_at=round(ended.ended_at + since_1970_s, 6),
        waited_s=_since(request.arrived_at, _first(each.first_assigned_at for each in members)),
        first_token_s=_since(request.arrived_at, _first(each.first_token_at for each in members)),
        attempts=sum(each.attempts for each in members),
        cost=max(sum(each.cost for each in members), finished.cost if finished is not None else 0.0),
        end=live.whole_state.value,
        reason=reason_of(outcome) if outcome is not None else "",
        adopted=any(each.adopted is not None for each in members),
    )


def _first(times: Iterable[float | None]) -> float | None:
    return min((each for each in times if each is not None), default=None)


def _since(arrived_at: float, at: float | None) -> float | None:
    return None if at is None else at - arrived_at
