"""Scheduler and executors are killed at once under detached work: each has one result, equal to vLLM's own answer."""

from __future__ import annotations

import asyncio

import pytest

from sage_client import AsyncClient, AsyncDetachedRequest, RequestState
from tests.support.fleet_processes import FleetProcesses
from tests.support.token_check import assert_tokens
from tests.vllm.system.cases import GREEDY, LONG, OTHERS, REPLAYED, Reference
from tests.vllm.system.engine_settings import NAMES, UP_WITHIN_S

pytestmark = [pytest.mark.vllm]

TRIES = 5  # beside other work the engines may be done before the test looks
CASES = dict(list(GREEDY.items())[:8]) | REPLAYED | {"logprobs": OTHERS["logprobs"]}


async def submitted(client: AsyncClient, attempt: int) -> dict[str, AsyncDetachedRequest]:
    """Submit all cases, under ids of their own."""
    return {
        name: await client.submit(
            case.prompt, request_id=f"detached-{attempt}-{name}".replace(" ", "-"), **case.options()
        )
        for name, case in CASES.items()
    }


async def until_token(job: AsyncDetachedRequest, count: int) -> None:
    stream = job.attach()
    while stream.next_token < count:
        await anext(stream)
    await stream.aclose()


async def test_kill_9_of_scheduler_and_executors_mid_stream(
    fleet: FleetProcesses, client: AsyncClient, references: dict[str, Reference]
) -> None:
    for attempt in range(TRIES):
        jobs = await submitted(client, attempt)
        watched = {name: asyncio.create_task(job.result(timeout=UP_WITHIN_S)) for name, job in jobs.items()}
        await until_token(jobs["greedy 0"], 5)
        states = [each.request.state for each in await asyncio.gather(*(job.get() for job in jobs.values()))]
        if not all(state is RequestState.FINISHED for state in states):
            break
    else:
        pytest.fail("none is struck in the middle")
    for process in (fleet.scheduler, *fleet.executors.values()):
        process.kill()
        assert await process.ended() == -9
    for process in (fleet.scheduler, *fleet.executors.values()):
        process.start()
    await fleet.ready(*NAMES, within_s=UP_WITHIN_S)
    for name, job in jobs.items():
        done, wanted = await job.result(timeout=UP_WITHIN_S), references[name]
        assert_tokens(done.token_ids, wanted.token_ids[: CASES[name].sampling.get("max_tokens", LONG)], name)
        assert wanted.text.startswith(done.text), name
        kept = await job.get()
        assert kept.request.state is RequestState.FINISHED
        assert kept.result is not None
        assert kept.result.token_ids == done.token_ids
        assert len(kept.result.logprobs) == len(wanted.logprobs)
        seen = await watched[name]
        assert_tokens(seen.token_ids, done.token_ids, f"{name}, as its reader saw it over the kill")
