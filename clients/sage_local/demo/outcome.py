"""What became of one request."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import sage_client as sage
from sage_local.demo.workload import Planned


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Times are seconds; those of the server count from acceptance."""

    planned: Planned
    request_id: str
    error: str = ""  # why it failed, or what is wrong with what came; empty if all is well
    accepted_at: float | None = None  # on this process's monotonic clock
    scheduled_at: float | None = None  # first placement, on the same
    instance_id: str = ""  # where it ran last
    why: str = ""  # the first reason of its first placement
    wait_s: float | None = None  # acceptance to first placement
    ttft_s: float | None = None  # acceptance to first token
    tokens: int = 0  # output tokens that arrived
    tokens_per_s: float | None = None  # after the first
    cost: float = 0.0  # by the price of the instances used
    slo_met: bool | None = None  # every target; None if there is none
    attempts: int = 0


async def run_planned(client: sage.AsyncClient, planned: Planned, *, model: str, prefix: str) -> Outcome:
    """Sends the request when it is due and reads its stream to the end.  Never raises for what the server says."""
    await asyncio.sleep(planned.after_s)
    prompt = None if planned.as_chat else planned.prompt
    request_id = f"{prefix}-{planned.name}"
    said: sage.GenerateOptions = {**planned.options(), "model": model, "request_id": request_id}
    stream = client.generate(prompt, **said)
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
    said = result.usage.completion_tokens
    if arrived == said == planned.output_tokens:
        return ""
    return f"{planned.output_tokens} tokens were asked for, {said} reported, {arrived} arrived"


def _rate(tokens: int, decode_s: float | None) -> float | None:
    return (tokens - 1) / decode_s if decode_s else None
