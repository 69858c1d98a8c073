"""How a short request ended that finished."""

from __future__ import annotations

from scheduler_svc.control.requests.outcome import Finished


def finished_with(reason: str) -> Finished:
    return Finished(
        finish_reason=reason,
        stop_string="",
        stop_token_id=None,
        prompt_tokens=2,
        completion_tokens=2,
        cached_prompt_tokens=0,
        attempts=1,
        queue_s=0.0,
        ttft_s=1.0,
        prefill_s=1.0,
        transfer_s=None,
        decode_s=1.0,
        total_s=2.0,
        cost=0.0,
        slo=(),
    )
