"""Runs one planned request and records its outcome."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import sage_client as sage
from sage_local.demo.workload import Planned


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of a planned request.  Durations are seconds, measured by the scheduler."""

    planned: Planned
    request_id: str
    error: str = ""  # why the request failed or how many tokens are missing; empty if neither
    accepted_at: float | None = None  # on this process's monotonic clock
    scheduled_at: float | None = None  # first placement, on the same clock
    instance_id: str = ""  # of its last placement
    why: str = ""  # the main reason of its first placement
    wait_s: float | None = None  # acceptance to first placement
    ttft_s: float | None = None  # acceptance to first token
    tokens: int = 0  # output tokens that arrived
    tokens_per_s: float | None = None  # after the first token
    cost: float = 0.0  # in the currency of the instances' prices
    slo_met: bool | None = None  # whether every target was met; None if it has none
    attempts: int = 0


async def run_planned(client: sage.AsyncClient, planned: Planned, *, model: str, prefix: str) -> Outcome:
    """Send the request when it is due and read its stream to the end; errors of the server go into the outcome."""
    await asyncio.sleep(planned.after_s)
    prompt = None if planned.as_chat else planned.prompt
    request_id = f"{prefix}-{planned.name}"
    options: sage.GenerateOptions = {**planned.options(), "model": model, "request_id": request_id}
    stream = client.generate(prompt, **options)
    accepted_at = scheduled_at = None
    why = ""
    arrived = 0
    try:
        async for event in stream:
            if isinstance(event, sage.Accepted):
                accepted_at = time.monotonic()
            elif isinstance(event, sage.Scheduled) and scheduled_at is None:
                scheduled_at, why = time.monotonic(), next(iter(event.decision.reasons), "")
            elif isinstance(event, sage.Tokens):
                arrived += len(event.token_ids)
        result = await stream.result()
    except sage.SageError as error:
        return Outcome(planned=planned, request_id=request_id, error=str(error), tokens=arrived)
    return Outcome(
        planned=planned,
        request_id=request_id,
        error=_what_is_wrong(planned, arrived, result),
        accepted_at=accepted_at,
        scheduled_at=scheduled_at,
        instance_id=result.instance_id,
        why=why,
        wait_s=result.timings.queue_s,
        ttft_s=result.timings.time_to_first_token_s,
        tokens=arrived,
        tokens_per_s=_rate(arrived, result.timings.decode_s),
        cost=result.cost,
        slo_met=all(slo.met for slo in result.slo) if result.slo else None,
        attempts=result.attempts,
    )


def _what_is_wrong(planned: Planned, arrived: int, result: sage.Completion) -> str:
    reported = result.usage.completion_tokens
    if arrived == reported == planned.output_tokens:
        return ""
    return f"{planned.output_tokens} tokens requested, {reported} reported, {arrived} arrived"


def _rate(tokens: int, decode_s: float | None) -> float | None:
    return (tokens - 1) / decode_s if decode_s else None
