"""What goes up on the control stream: made when it can be taken, the urgent first, Goodbye last."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from executor_svc.runtime.engine_port import EngineState
from executor_svc.runtime.messages.reports import (
    ControlUp,
    Drained,
    DrainRequested,
    EngineStatus,
    Goodbye,
    Heartbeat,
    KvReleased,
    PrefixCacheReport,
    TokenizerChunk,
)
from executor_svc.runtime.session.control_outbox import ANSWERS_KEPT, ControlOutbox

BEAT = Heartbeat(
    number=1,
    last_assign=0,
    load=None,
    prompt_tokens_per_s=0.0,
    generation_tokens_per_s=0.0,
    iterations=(),
    event_loop_lag_s=0.0,
)
CHUNKS = [TokenizerChunk(tokenizer_hash="h", data=b"x", last=last) for last in (False, True)]


async def wanted(outbox: ControlOutbox, at_most: int = 20) -> list[ControlUp]:
    """All that goes out now, Goodbye once."""
    messages: list[ControlUp] = []
    while len(messages) < at_most and not (messages and isinstance(messages[-1], Goodbye)):
        try:
            async with asyncio.timeout(0):
                messages.append(await outbox.next())
        except TimeoutError:
            break
    return messages


async def fresh() -> ControlOutbox:
    outbox = ControlOutbox(lambda: BEAT)
    await wanted(outbox)
    return outbox


async def test_a_new_session_is_told_the_status_first_and_then_the_load() -> None:
    outbox = await fresh()
    outbox.restart()
    assert [type(message) for message in await wanted(outbox)] == [EngineStatus, Heartbeat]


async def test_a_slow_link_gets_the_latest_status_and_one_heartbeat() -> None:
    outbox = await fresh()
    for state in (EngineState.LOADING, EngineState.WARMING):
        outbox.set_status(EngineStatus(state=state))
        outbox.want_heartbeat()
    assert await wanted(outbox) == [EngineStatus(state=EngineState.WARMING), BEAT]


async def test_heartbeats_pass_a_tokenizer_upload_and_goodbye_ends_it() -> None:
    outbox = await fresh()
    outbox.want_tokenizer(iter(CHUNKS))
    assert await outbox.next() == CHUNKS[0]
    outbox.want_heartbeat()
    outbox.request_drain("SIGTERM")
    outbox.report_drained()
    assert await wanted(outbox) == [BEAT, DrainRequested(reason="SIGTERM"), Drained(), CHUNKS[1]]
    outbox.say_goodbye("SIGTERM")
    assert await wanted(outbox) == [Goodbye(reason="SIGTERM")]


async def test_what_was_on_its_way_in_an_old_session_is_not_said_in_the_new_one() -> None:
    outbox = await fresh()
    outbox.want_tokenizer(iter(CHUNKS))
    outbox.report_drained()
    outbox.restart()
    assert [type(message) for message in await wanted(outbox)] == [EngineStatus, Heartbeat]


async def test_a_heartbeat_is_made_from_how_things_stand_when_it_goes_out() -> None:
    number = 0

    def make() -> Heartbeat:
        return replace(BEAT, number=number)

    outbox = ControlOutbox(make)
    await wanted(outbox)
    outbox.want_heartbeat()
    number = 9
    assert await wanted(outbox) == [replace(BEAT, number=9)]


async def test_answers_go_out_in_order_and_once() -> None:
    outbox = await fresh()
    for number in (1, 2):
        outbox.answer(KvReleased(number=number, released=True))
    assert await wanted(outbox) == [KvReleased(number=number, released=True) for number in (1, 2)]


async def test_beyond_the_bound_the_oldest_answer_is_dropped() -> None:
    outbox = await fresh()
    for number in range(ANSWERS_KEPT + 1):
        outbox.answer(KvReleased(number=number, released=True))
    assert await wanted(outbox, at_most=1) == [KvReleased(number=1, released=True)]


async def test_a_new_session_gets_no_answers_of_an_old_one() -> None:
    outbox = await fresh()
    outbox.answer(KvReleased(number=1, released=True))
    outbox.restart()
    assert KvReleased not in {type(message) for message in await wanted(outbox)}


async def test_reports_of_the_prefix_cache_follow_a_heartbeat_until_there_are_none() -> None:
    reports = [PrefixCacheReport(number=n, block_tokens=64, reset=n == 1, removed=(), stored=(n,)) for n in (1, 2)]
    due = list(reports)
    outbox = ControlOutbox(lambda: BEAT, lambda: due.pop(0) if due else None)
    assert [type(message) for message in await wanted(outbox)] == [EngineStatus]

    outbox.want_heartbeat()
    assert await wanted(outbox) == [BEAT, *reports]

    outbox.want_heartbeat()
    assert await wanted(outbox) == [BEAT]
