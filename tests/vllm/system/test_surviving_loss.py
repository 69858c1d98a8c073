"""An executor, or the scheduler, goes while 32 streams run: every one completes, equal to vLLM's own answer."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from sage_client import AsyncClient, InstanceState, RequestNotFoundError
from tests.support.fleet_processes import FleetProcesses
from tests.support.token_check import assert_tokens
from tests.vllm.system.cases import GREEDY, LONG, REPLAYED, Reference
from tests.vllm.system.engine_settings import UP_WITHIN_S
from tests.vllm.system.held_still import MOST_ENDED, engine_processes, held_still
from tests.vllm.system.streams import CheckedStream

pytestmark = [pytest.mark.vllm]

References = dict[str, Reference]


async def streaming(client: AsyncClient, references: References, *, replayed: bool) -> list[CheckedStream]:
    """32 streams, those that run in the middle of their output."""
    cases = dict(list(GREEDY.items())[: 32 - len(REPLAYED)]) | REPLAYED if replayed else GREEDY
    await client.set_policy("fifo")
    streams = [CheckedStream(client, name, case, references[name], max_tokens=LONG) for name, case in cases.items()]
    await asyncio.gather(*(stream.until_token(10) for stream in streams[:16]))
    return streams


async def test_kill_9_of_one_of_two_executors_mid_stream(
    fleet: FleetProcesses, client: AsyncClient, references: References
) -> None:
    victim = fleet.executors["one"]
    streams = await streaming(client, references, replayed=True)
    async with held_still(client, {"one": victim}) as running:
        victim.kill()
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    assert len(done) == 32
    moved = [each for each in done if each.attempts > 1]
    assert len(moved) + MOST_ENDED >= running["one"] >= 8, "those that ran there went on elsewhere"
    assert {each.instance_id for each in moved} == {"two"}
    for each in moved:
        told = (await client.explain(each.request_id)).history
        ways = [entry.detail for entry in told if entry.event == "continues"]
        assert all("takes as its output so far" in way for way in ways), "seeds, penalties and regexes included"
    assert await victim.ended() == -9
    await victim.alone(within_s=15)
    assert (await client.get_instance("one")).state is InstanceState.LOST


async def test_the_killed_one_comes_back_when_it_is_started_again(
    fleet: FleetProcesses, client: AsyncClient, references: References
) -> None:
    """Killed by the test before; alone, this one kills it itself."""
    victim = fleet.executors["one"]
    if victim.starts == 1:
        victim.kill()
        await victim.ended()
        victim.start()
        await fleet.until("one", InstanceState.READY, within_s=UP_WITHIN_S)
    name, case = next(iter(GREEDY.items()))
    done = await client.generate(case.prompt, **case.options(), preferred_instance="one").result()
    assert done.instance_id == "one"
    assert_tokens(done.token_ids, references[name].token_ids, name)


async def test_kill_9_of_vllms_own_process_mid_stream(
    fleet: FleetProcesses, client: AsyncClient, references: References
) -> None:
    victim = fleet.executors["one"]
    streams = await streaming(client, references, replayed=True)
    async with held_still(client, {"one": victim}) as running:
        for process in engine_processes(victim):
            process.kill()
    assert await victim.ended() > 0, "it ends with its engine, for its supervisor to start it again"
    await victim.alone(within_s=15)
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    assert len(done) == 32
    moved = [each for each in done if each.attempts > 1]
    assert len(moved) + MOST_ENDED >= running["one"] >= 8, "those that ran there went on elsewhere"


async def test_kill_9_of_the_scheduler_mid_stream(
    fleet: FleetProcesses, client: AsyncClient, references: References
) -> None:
    streams = await streaming(client, references, replayed=True)
    async with held_still(client, fleet.executors) as running:
        fleet.scheduler.kill()
    assert await fleet.scheduler.ended() == -9
    fleet.scheduler.start()
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    assert len(done) == 32
    adopted = [await _was_adopted(client, each.request_id) for each in done]
    assert sum(adopted) + MOST_ENDED >= sum(running.values()) >= 8, "what ran went on where it was"
    assert all(each.attempts == 1 for each in done)


async def _was_adopted(client: AsyncClient, request_id: str) -> bool:
    try:
        story = await client.explain(request_id)
    except RequestNotFoundError:
        return False  # it ended before the kill: the record died with the scheduler
    return any(entry.event == "adopted" for entry in story.history)


async def test_sigterm_drains_to_zero_in_flight(
    fleet: FleetProcesses, client: AsyncClient, references: References
) -> None:
    leaving = fleet.executors["two"]
    streams = await streaming(client, references, replayed=False)
    before = Counter([(await client.explain(s.stream.request_id)).decisions[-1].instance_id for s in streams[:16]])
    leaving.terminate()
    await fleet.until("two", InstanceState.DRAINING)
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    assert before["two"] >= 1, "where the policy puts them is not this test's matter"
    assert all(each.attempts == 1 for each in done), "what ran was finished where it was"
    assert await leaving.ended() == 0
    await leaving.alone()
    gone = await client.get_instance("two")
    assert gone.state is InstanceState.LOST
    assert "SIGTERM" in gone.state_reason
    assert gone.assigned == 0
