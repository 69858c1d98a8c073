"""Cancelled, abandoned or late: the request ends once, and the engine's room is free.  The engine's own counters say
so."""

from __future__ import annotations

import asyncio

import pytest

from sage_client import (
    AsyncClient,
    AsyncStream,
    DeadlineExceededError,
    InternalError,
    RequestCancelledError,
    RequestNotFoundError,
    RequestState,
    Tokens,
)
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.eventually import eventually

LONG = 5_000


async def running(stream: AsyncStream) -> None:
    """Read up to the first token."""
    while not isinstance(await anext(stream), Tokens):
        pass


async def assert_let_go(fleet: LocalFleet, executor: LocalExecutor) -> None:
    """Nothing is left of any request: not in the engine, not in what it reports, not in the ledger."""
    await eventually(lambda: executor.engine.load().unfinished == 0, within_s=5, what="the engine to be idle")
    load = executor.engine.load()
    assert (load.running, load.waiting, load.kv_used_tokens) == (0, 0, 0)

    async def reported() -> bool:
        seen = await fleet.instance(executor.instance_id)
        return (seen.running, seen.kv_used_tokens, seen.assigned, seen.kv_reserved_tokens) == (0, 0, 0, 0)

    await eventually(reported, within_s=5, what="the scheduler to know")


async def test_a_cancelled_request_frees_its_kv(fleet: LocalFleet, one: LocalExecutor) -> None:
    stream = fleet.client.generate("Once", max_tokens=LONG)
    await running(stream)
    assert one.engine.load().kv_used_tokens > 0
    cancelled = await fleet.client.cancel(stream.request_id, reason="changed my mind")
    assert (cancelled.cancelled, cancelled.state) == (True, RequestState.CANCELLED)
    with pytest.raises(RequestCancelledError, match="changed my mind"):
        await stream.result()
    await assert_let_go(fleet, one)


async def test_cancelling_twice_or_after_the_end_changes_nothing(client: AsyncClient) -> None:
    done = await client.generate("Once", max_tokens=2).result()
    late = await client.cancel(done.request_id)
    assert (late.cancelled, late.state) == (False, RequestState.FINISHED)
    with pytest.raises(RequestNotFoundError, match="no-such-request"):
        await client.cancel("no-such-request")


async def test_a_request_cancelled_in_the_queue_never_reaches_the_engine(fleet: LocalFleet) -> None:
    executor = await fleet.add("one", max_running=1)
    running_one = fleet.client.generate("Once", max_tokens=LONG)
    await running(running_one)
    ahead = fleet.client.generate("Twice", max_tokens=5)  # the engine's lookahead
    waiting = fleet.client.generate("Thrice", max_tokens=5)
    await anext(waiting)
    assert (await fleet.client.explain(waiting.request_id)).state is RequestState.QUEUED
    assert (await waiting.cancel()).cancelled
    with pytest.raises(RequestCancelledError):
        await waiting.result()
    await running_one.cancel()
    assert (await ahead.result()).usage.completion_tokens == 5
    assert executor.engine.load().prompt_tokens_total < 16 * 3
    await assert_let_go(fleet, executor)


@pytest.mark.parametrize("how", ["stream closed", "channel closed"])
async def test_a_client_that_goes_away_frees_its_kv(how: str, fleet: LocalFleet, one: LocalExecutor) -> None:
    client = fleet.new_client()
    stream = client.generate("Once", max_tokens=LONG)
    await running(stream)
    await (stream.aclose() if how == "stream closed" else client.close())
    await assert_let_go(fleet, one)
    explained = await fleet.client.explain(stream.request_id)
    assert explained.state is RequestState.CANCELLED
    assert "went away" in explained.error


async def test_an_error_while_output_is_sent_is_not_the_clients_leaving(
    fleet: LocalFleet, one: LocalExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    stream = fleet.new_client(use_sessions=False).generate("Once", max_tokens=LONG)
    await running(stream)
    monkeypatch.setattr("scheduler_svc.transport.events.tokens", broken)
    with pytest.raises(InternalError):
        await stream.result()
    await assert_let_go(fleet, one)
    explained = await fleet.client.explain(stream.request_id)
    assert explained.state is RequestState.CANCELLED
    assert "could not be sent" in explained.error
    assert "a defect" in caplog.text


async def test_one_of_two_readers_going_away_changes_nothing_for_the_other(client: AsyncClient) -> None:
    first = client.generate("Once", max_tokens=60, request_id="r")
    await running(first)
    second = client.generate("Once", max_tokens=60, request_id="r")
    await running(second)
    await first.aclose()
    assert (await second.result()).usage.completion_tokens == 60


async def test_a_deadline_ends_a_running_request_and_frees_its_kv(fleet: LocalFleet, one: LocalExecutor) -> None:
    stream = fleet.client.generate("Once", max_tokens=LONG, deadline=0.15)
    await running(stream)
    with pytest.raises(DeadlineExceededError, match="output tokens") as caught:
        await stream.result()
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    await assert_let_go(fleet, one)
    assert (await fleet.client.explain(stream.request_id)).state is RequestState.EXPIRED


async def test_a_deadline_ends_a_waiting_request(fleet: LocalFleet) -> None:
    await fleet.add("one", max_running=1)
    streams = [fleet.client.generate("Once", max_tokens=LONG) for _ in range(2)]
    await running(streams[0])
    late = fleet.client.generate("Twice", max_tokens=5, deadline=0.15)
    with pytest.raises(DeadlineExceededError, match="in the queue"):
        await late.result()
    for stream in streams:
        await stream.cancel()


async def test_the_callers_own_grpc_deadline_ends_it_too(fleet: LocalFleet, one: LocalExecutor) -> None:
    from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc

    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    spec = inference_pb2.GenerationSpec(text="Once")
    call = stub.Generate(inference_pb2.GenerateRequest(spec=spec), timeout=0.15)
    with pytest.raises(Exception, match="DEADLINE_EXCEEDED"):
        async for _ in call:
            pass
    await assert_let_go(fleet, one)


async def test_every_one_of_many_cancelled_at_once_ends_once(fleet: LocalFleet, one: LocalExecutor) -> None:
    streams = [fleet.client.generate(f"Story {n}", max_tokens=LONG) for n in range(60)]
    await asyncio.gather(*(anext(stream) for stream in streams))  # accepted

    async def end(index: int, stream: AsyncStream) -> str:
        if index % 3 == 0:
            await stream.cancel()
        elif index % 3 == 1:
            await stream.aclose()
            return "left"
        else:
            await fleet.client.cancel(stream.request_id)
        with pytest.raises(RequestCancelledError):
            await stream.result()
        return "cancelled"

    ends = await asyncio.gather(*(end(n, stream) for n, stream in enumerate(streams)))
    assert set(ends) == {"left", "cancelled"}
    await assert_let_go(fleet, one)
