"""Ends of requests, as the scheduler tells of them."""

from __future__ import annotations

from sage_client import Finished, FinishReason, Timings, Usage


def end(
    reason: FinishReason = FinishReason.LENGTH,
    *,
    stop_string: str | None = None,
    stop_token_id: int | None = None,
    cached: int = 0,
) -> Finished:
    none = dict.fromkeys(("queue_s", "time_to_first_token_s", "prefill_s", "transfer_s", "decode_s", "total_s"))
    return Finished(
        finish_reason=reason,
        stop_string=stop_string,
        stop_token_id=stop_token_id,
        usage=Usage(prompt_tokens=1, completion_tokens=1, cached_prompt_tokens=cached),
        timings=Timings(**none),
        attempts=1,
        cost=0.0,
        slo=(),
    )
