"""A stream whose connection breaks goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import sage_client as sage
from sage.controlplane.v1 import inference_pb2
from sage_client import AsyncClient, Reconnect
from sage_wire.errors import ErrorReason
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    events,
    fail,
    finished,
    scheduled,
    tokens,
    whole_text,
)
from tests.support.network_proxy import NetworkProxy

pytestmark = pytest.mark.usefixtures("transport")

Events = AsyncIterator[inference_pb2.GenerateResponse]
QUICK = Reconnect(attempts=3, first_delay_s=0.01, max_delay_s=0.02)


def breaking_after(
    count: int, of: int, *, overlap: int = 0, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
) -> Any:
    """Breaks each connection after ``count`` tokens and repeats ``overlap`` of them on the next."""

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        first = max(request.after_token - overlap, 0)
        yield accepted(request, attached=request.after_token > 0)
        yield scheduled()
        for index in range(first, min(request.after_token + count, of)):
            yield tokens(index)
        if request.after_token + count < of:
            await context.abort(code, "Socket closed")
        yield finished(of)

    return generate


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
async def test_each_token_comes_once_over_several_breaks(scheduler: FakeScheduler, code: grpc.StatusCode) -> None:
    scheduler.generate = breaking_after(3, of=10, code=code)
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        seen = [event async for event in client.generate("hi", request_id="r")]

    ids = [i for event in seen if isinstance(event, sage.Tokens) for i in event.token_ids]
    assert ids == list(range(100, 110))
    assert sum(isinstance(event, sage.Accepted) for event in seen) == 1
    assert [r.after_token for r in scheduler.requests] == [0, 3, 6, 9]
    assert {r.request_id for r in scheduler.requests} == {"r"}
    assert len({r.spec.SerializeToString() for r in scheduler.requests}) == 1


async def test_tokens_sent_again_are_dropped(scheduler: FakeScheduler) -> None:
    scheduler.generate = breaking_after(4, of=12, overlap=2)
    scheduler.repeats = 2
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        result = await client.generate("hi").result()

    assert result.token_ids == tuple(range(100, 112))
    assert result.text == whole_text(12)


async def test_a_cut_connection_is_taken_up_again(scheduler: FakeScheduler) -> None:
    go_on = asyncio.Event()

    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        for event in events(request, 20, attached=request.after_token > 0):
            yield event
            if event.tokens.first_index == 9:
                await go_on.wait()

    scheduler.generate = generate
    async with NetworkProxy(scheduler.port) as proxy, AsyncClient(proxy.address, reconnect=QUICK) as client:
        stream = client.generate("hi")
        async for event in stream:
            if isinstance(event, sage.Tokens) and stream.next_token == 10:
                await proxy.cut()
                go_on.set()
        result = await stream.result()

    assert result.token_ids == tuple(range(100, 120))
    assert [r.after_token for r in scheduler.requests] == [0, 10]


async def test_a_placement_told_again_is_not_a_second_one(scheduler: FakeScheduler) -> None:
    scheduler.generate = breaking_after(3, of=5)
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        assert len((await client.generate("hi").result()).decisions) == 1


async def test_a_request_that_waits_comes_back_with_its_receipt(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        first = accepted(request)
        first.accepted.receipt = b"of the first"
        yield first
        if not request.receipt:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        for event in events(request, 3)[1:]:
            yield event

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        await client.generate("hi").result()
    assert [r.receipt for r in scheduler.requests] == [b"", b"of the first"]
    assert [r.fresh for r in scheduler.requests] == [True, False], "the first scheduler may know it"


async def test_an_id_of_the_callers_own_may_be_known(scheduler: FakeScheduler) -> None:
    async with AsyncClient(scheduler.address) as client:
        await client.generate("hi", request_id="mine").result()
    assert not scheduler.requests[0].fresh


async def test_attempts_without_a_token_are_bounded_though_each_is_accepted(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request, attached=len(scheduler.requests) > 1)
        yield scheduled()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        with pytest.raises(sage.UnavailableError):
            await client.generate("hi").result()

    assert len(scheduler.requests) == 1 + QUICK.attempts


async def test_a_request_given_up_meanwhile_is_said_to_be_a_broken_connection(
    scheduler: FakeScheduler,
) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request, attached=len(scheduler.requests) > 1)
        if len(scheduler.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        await fail(context, ErrorReason.CANCELLED, "cancelled: the client went away")

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        with pytest.raises(sage.UnavailableError, match="the client went away"):
            await client.generate("hi").result()


async def test_attempts_are_bounded(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        if len(scheduler.requests) == 1:
            yield accepted(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        with pytest.raises(sage.UnavailableError):
            await client.generate("hi").result()

    assert len(scheduler.requests) == 1 + QUICK.attempts


async def test_attaching_again_can_be_turned_off(scheduler: FakeScheduler) -> None:
    scheduler.generate = breaking_after(3, of=10)
    async with AsyncClient(scheduler.address, reconnect=Reconnect(attempts=0)) as client:
        stream = client.generate("hi")
        with pytest.raises(sage.UnavailableError):
            await stream.result()

    assert stream.next_token == 3
    assert len(scheduler.requests) == 1


async def break_at_once(request: inference_pb2.GenerateRequest, context: Any) -> Events:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    yield accepted(request)


async def test_a_generate_call_that_was_never_accepted_is_made_again_by_its_id(scheduler: FakeScheduler) -> None:
    scheduler.generate = break_at_once
    async with AsyncClient(scheduler.address, reconnect=QUICK, use_sessions=False) as client:
        with pytest.raises(sage.UnavailableError) as raised:
            await client.generate("hi").result()

    assert len(scheduler.requests) == 1 + QUICK.attempts
    assert len({request.request_id for request in scheduler.requests}) == 1
    assert (raised.value.__cause__, raised.value.__context__) == (None, None), "gRPC's error adds nothing"


async def test_a_request_that_the_scheduler_cancelled_before_it_came_again_was_not_cancelled_by_anyone(
    scheduler: FakeScheduler,
) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        if len(scheduler.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        await fail(context, ErrorReason.CANCELLED, "cancelled: the client went away")
        yield accepted(request)

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        with pytest.raises(sage.UnavailableError, match="the client went away"):
            await client.generate("hi").result()


async def test_a_session_submits_again_what_was_not_accepted_before_it_broke(scheduler: FakeScheduler) -> None:
    scheduler.generate = break_at_once
    async with AsyncClient(scheduler.address, reconnect=QUICK, use_sessions=True) as client:
        with pytest.raises(sage.UnavailableError, match="Socket closed") as raised:
            await client.generate("hi").result()

    assert len(scheduler.requests) == 1 + QUICK.attempts
    assert len({request.request_id for request in scheduler.requests}) == 1
    assert (raised.value.__cause__, raised.value.__context__) == (None, None), "gRPC's error adds nothing"


@pytest.mark.parametrize(
    ("detached", "new_run"), [(False, "the new run is cancelled"), (True, "the new run goes on without this stream")]
)
async def test_a_request_begun_anew_is_not_spliced_onto_the_old_output(
    scheduler: FakeScheduler, detached: bool, new_run: str
) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request, attached=False)
        yield tokens(request.after_token)
        if len(scheduler.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        await asyncio.Event().wait()

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        with pytest.raises(sage.StreamLostError, match=f"after 1 output tokens .* began it again; .* {new_run}"):
            await client.generate("hi", detached=detached).result()
        await asyncio.wait_for(scheduler.left.wait(), 5)  # a request that is not detached ends with its stream

    assert len(scheduler.requests) == 2


async def test_a_request_that_is_no_longer_known_is_lost(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        if request.after_token:
            await fail(context, ErrorReason.REQUEST_NOT_FOUND, "no request of this id")
        yield accepted(request, attached=False)
        yield tokens(0)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        with pytest.raises(sage.StreamLostError, match=r"after 1 output tokens .* no longer knew the request"):
            await client.generate("hi").result()


async def test_a_request_begun_anew_before_its_first_token_goes_on(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request, attached=False)
        if len(scheduler.requests) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        yield tokens(0)
        yield finished(1)

    scheduler.generate = generate
    async with AsyncClient(scheduler.address, reconnect=QUICK) as client:
        assert (await client.generate("hi").result()).token_ids == (100,)


async def test_the_timeout_bounds_the_attempts_too(scheduler: FakeScheduler) -> None:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        if len(scheduler.requests) == 1:
            yield accepted(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    scheduler.generate = generate
    patient = Reconnect(attempts=1000, first_delay_s=5.0, max_delay_s=5.0)
    async with AsyncClient(scheduler.address, reconnect=patient) as client:
        with pytest.raises(sage.WaitTimeoutError):
            await client.generate("hi", timeout=0.2).result()
