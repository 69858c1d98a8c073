"""Opening a session over real gRPC: its first message, its bounds, and who may send which requests on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import code_pb2

from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from sage_wire.protocol import PROTOCOL_VERSION
from scheduler_svc.access.audit import LOGGER
from scheduler_svc.transport.client_sessions import session_servicer
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.support.lost_status import with_status
from tests.unit.transport.served import WITHIN_S, WireExecutor, dialled, reason_of, refusal, serving

OPEN = inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=PROTOCOL_VERSION))
Call = grpc.aio.StreamStreamCall[inference_pb2.SessionRequest, inference_pb2.SessionResponse]


@pytest.fixture
async def scheduler() -> AsyncIterator[SchedulerService]:
    async with serving() as scheduler:
        yield scheduler


@pytest.fixture
async def channel(scheduler: SchedulerService) -> AsyncIterator[grpc.aio.Channel]:
    async with dialled(scheduler) as channel:
        yield channel


async def opened(channel: grpc.aio.Channel, name: str = "", first: inference_pb2.SessionRequest = OPEN) -> Call:
    metadata = (("authorization", f"Bearer key-{name}"),) if name else ()
    call: Call = inference_pb2_grpc.InferenceServiceStub(channel).Session(metadata=metadata)
    await call.write(first)
    return call


async def refused(call: Call) -> grpc.aio.AioRpcError:
    async with asyncio.timeout(WITHIN_S):
        return await refusal(call)


async def turned_away(channel: grpc.aio.Channel, name: str = "") -> grpc.aio.AioRpcError:
    """Open a session that ends before its first message is read, and return its end."""

    async def ask() -> inference_pb2.SessionResponse:
        return await answer(await opened(channel, name))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await with_status(ask)
    return caught.value


async def answer(call: Call) -> inference_pb2.SessionResponse:
    async with asyncio.timeout(WITHIN_S):
        message = await call.read()
    assert isinstance(message, inference_pb2.SessionResponse)
    return message


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION, PROTOCOL_VERSION + 1])
async def test_one_version_of_skew_is_taken(channel: grpc.aio.Channel, version: int) -> None:
    first = inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=version))
    call = await opened(channel, first=first)
    assert (await answer(call)).opened.protocol_version == min(version, PROTOCOL_VERSION)
    call.cancel()


async def test_another_version_is_refused(channel: grpc.aio.Channel) -> None:
    first = inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=PROTOCOL_VERSION + 2))
    error = await refused(await opened(channel, first=first))
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VERSION")


async def test_open_and_the_first_requests_may_share_a_message(channel: grpc.aio.Channel) -> None:
    first = inference_pb2.SessionRequest(open=OPEN.open, ping=4)
    first.attach.add(handle=1, request_id="nobody")
    call = await opened(channel, first=first)
    assert (await answer(call)).HasField("opened")
    second = await answer(call)
    assert (second.pong, second.frame.failed[0].status.code) == (4, code_pb2.NOT_FOUND)
    call.cancel()


async def test_a_stream_that_says_nothing_is_ended(channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_servicer, "OPEN_LIMIT_S", 0.05)
    call: Call = inference_pb2_grpc.InferenceServiceStub(channel).Session()
    error = await refused(call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error.details()).startswith("open: did not come")


async def test_a_stream_that_ends_without_a_message_is_refused(channel: grpc.aio.Channel) -> None:
    call: Call = inference_pb2_grpc.InferenceServiceStub(channel).Session()
    await call.done_writing()
    assert (await refused(call)).code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("name", "what"), [("CALLER_SESSIONS_LIMIT", "one caller"), ("SESSIONS_LIMIT", "sessions")])
async def test_sessions_are_bounded_and_one_that_ends_makes_room(
    channel: grpc.aio.Channel, scheduler: SchedulerService, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setattr(session_servicer, name, 2)
    calls = [await opened(channel) for _ in range(2)]
    for call in calls:
        await answer(call)
    error = await turned_away(channel)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "LIMIT_REACHED")
    assert what in str(error.details())
    await calls[0].write(inference_pb2.SessionRequest(bye=True))
    async with asyncio.timeout(WITHIN_S):
        assert await calls[0].code() is grpc.StatusCode.OK
    again = await opened(channel)
    assert (await answer(again)).HasField("opened")
    calls[1].cancel()
    again.cancel()


async def test_a_scheduler_that_is_shutting_down_opens_none(
    channel: grpc.aio.Channel, scheduler: SchedulerService
) -> None:
    scheduler._client_sessions.close()
    error = await turned_away(channel)
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_tenants_are_judged_for_each_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.toml"
    for name, grant in (
        ("app", Grant(role=Role.APPLICATION, tenant="a")),
        ("obs", Grant(role=Role.OBSERVER)),
        ("exe", Grant(role=Role.EXECUTOR, instances=("a",))),
    ):
        keys_file.add(path, Key(name=name, sha256=hash_of(f"key-{name}"), grant=grant))
    async with serving(access={"keys_file": path}) as scheduler, dialled(scheduler) as channel:
        error = await turned_away(channel, "obs")
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        executor = WireExecutor(channel, metadata=(("authorization", "Bearer key-exe"),))
        await executor.register()
        await executor.open_outputs()
        await executor.ready()
        call = await opened(channel, "app")
        await answer(call)
        message = inference_pb2.SessionRequest()
        for handle, tenant in ((1, "b"), (2, "")):
            request = message.submit.add(handle=handle).request
            request.tenant, request.request_id = tenant, f"r{handle}"
            request.spec.tokens.ids.extend([1, 2, 3])
        message.attach.add(handle=3, tenant="b", request_id="r1")
        with caplog.at_level(logging.WARNING, LOGGER):
            await call.write(message)
            accepted: set[int] = set()
            failed: dict[int, int] = {}
            while len(accepted) + len(failed) < 3:
                frame = (await answer(call)).frame
                accepted |= {each.handle for each in frame.accepted}
                failed |= {each.handle: each.status.code for each in frame.failed}
        assert accepted == {2}
        assert failed == {1: code_pb2.PERMISSION_DENIED, 3: code_pb2.NOT_FOUND}
        line = [record.getMessage() for record in caplog.records if record.name == LOGGER][-1]
        assert line.startswith("refused: Session by 'app'")
        call.cancel()
