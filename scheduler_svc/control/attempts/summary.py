"""Sums up a request that finished."""

from __future__ import annotations

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.domain.attempt_end import AttemptEnd


def summary(live: LiveRequest, end: AttemptEnd, now: float) -> Finished:
    """Return how the request finished; ``end`` is its last attempt's."""
    arrived, first = live.request.arrived_at, live.first_token_at
    assigned = live.first_assigned_at if live.first_assigned_at is not None else now
    prefilled = live.prefill_ended_at
    return Finished(
        finish_reason=end.finish_reason,
        stop_string=end.stop_string,
        stop_token_id=end.stop_token_id,
        prompt_tokens=live.request.prompt_tokens,
        completion_tokens=len(live.output),
        cached_prompt_tokens=end.cached_prompt_tokens,
        attempts=live.attempts,
        queue_s=assigned - arrived,
        ttft_s=None if first is None else first - arrived,
        prefill_s=None if first is None else (first if prefilled is None else prefilled) - assigned,
        transfer_s=None if first is None or prefilled is None else first - prefilled,
        decode_s=None if first is None else (live.last_token_at or now) - first,
        total_s=now - arrived,
        cost=live.cost,
        slo=tuple(live.measure_slo(now)),
        embedding=end.embedding,
    )
