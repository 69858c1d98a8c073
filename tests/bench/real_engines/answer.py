"""One request to a real fleet as its client saw it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sage_client import AsyncClient, Finished, GenerateOptions, SageError, Scheduled, Tokens
from sage_simulator.traced_request import TracedRequest

REQUEST_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came of a request.  Seconds on the client's clock; None where nothing came."""

    priority: str
    instance: str  # that had it last; empty: none had it
    ttft_s: float | None  # from the call to its first token
    tpot_s: float | None  # per later token; None with one token
    in_target: bool  # it finished, within each target that it stated
    output_tokens: int  # that came
    cost: float  # in the currency of the prices


async def answer(client: AsyncClient, request: TracedRequest, prompt: Sequence[int]) -> Answer:
    """Send a request and read its answer to the end.  One that is refused or fails is not in target."""
    began = time.perf_counter()
    first = last = 0.0
    instance, tokens, finished = "", 0, None
    try:
        async for event in client.generate(**_options(request, prompt)):
            if isinstance(event, Scheduled):
                instance = event.decision.instance_id
            elif isinstance(event, Tokens):
                last = time.perf_counter()
                first = first or last
                tokens += len(event.token_ids)
            elif isinstance(event, Finished):
                finished = event
    except SageError:
        finished = None
    ttft_s = first - began if first else None
    tpot_s = (last - first) / (tokens - 1) if tokens > 1 else None
    return Answer(
        priority=request.priority.name,
        instance=instance,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        in_target=finished is not None
        and _within(ttft_s, request.ttft_target_s)
        and _within(tpot_s, request.tpot_target_s),
        output_tokens=tokens,
        cost=finished.cost if finished is not None else 0.0,
    )


def _options(request: TracedRequest, prompt: Sequence[int]) -> GenerateOptions:
    options = GenerateOptions(
        token_ids=prompt,
        max_tokens=request.output_tokens,
        ignore_eos=True,
        temperature=0.0,
        priority=request.priority.name,
        timeout=REQUEST_TIMEOUT_S,
    )
    if request.ttft_target_s is not None:
        options["ttft_target"] = request.ttft_target_s
    if request.tpot_target_s is not None:
        options["tpot_target"] = request.tpot_target_s
    return options


def _within(came_s: float | None, target_s: float | None) -> bool:
    return target_s is None or came_s is None or came_s <= target_s
