"""A client with the addresses of several schedulers, of which one leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import sage_client as sage
from sage.controlplane.v1 import admin_pb2, inference_pb2
from sage_client import AsyncClient, Reconnect
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    always,
    finished,
    scheduled,
    started,
    tokens,
)
from tests.support.eventually import eventually

QUICK = Reconnect(attempts=50, first_delay_s=0.01, max_delay_s=0.02)
POLICY = admin_pb2.GetPolicyResponse(policy="fifo")


@pytest.fixture
async def other() -> AsyncIterator[FakeScheduler]:
    fake = await started()
    yield fake
    await fake.stop()


def client_of(*schedulers: FakeScheduler, **options: Any) -> AsyncClient:
    return AsyncClient(",".join(each.address for each in schedulers), reconnect=QUICK, **options)


async def test_a_request_goes_to_the_one_that_leads(
    transport: str, scheduler: FakeScheduler, other: FakeScheduler
) -> None:
    scheduler.leader = ""
    async with client_of(scheduler, other) as client:
        assert (await client.generate("hi", max_tokens=2).result()).token_ids == (100, 101)
        assert (await client.generate("hi", max_tokens=2).result()).token_ids == (100, 101)
    assert scheduler.refused == 1
    assert len(other.requests) == 2


async def test_the_leader_that_a_standby_names_is_asked_next(scheduler: FakeScheduler, other: FakeScheduler) -> None:
    third = await started()
    other.leader, third.leader = scheduler.address, scheduler.address
    third.admin["GetPolicy"] = scheduler.admin["GetPolicy"] = always(POLICY)
    async with client_of(third, other, scheduler) as client:
        assert (await client.get_policy()).policy == "fifo"
    assert (third.refused, other.refused) == (1, 0)
    await third.stop()


async def test_a_request_waits_until_a_scheduler_leads(
    transport: str, scheduler: FakeScheduler, other: FakeScheduler
) -> None:
    scheduler.leader = other.leader = ""
    async with client_of(scheduler, other) as client:
        result = asyncio.create_task(client.generate("hi", max_tokens=2).result())
        await eventually(lambda: scheduler.refused > 1 and other.refused > 1)
        other.leader = None
        assert (await result).token_ids == (100, 101)


async def test_a_scheduler_that_is_gone_is_passed_over(
    transport: str, scheduler: FakeScheduler, other: FakeScheduler
) -> None:
    await scheduler.stop()
    other.admin["GetPolicy"] = always(POLICY)
    async with client_of(scheduler, other) as client:
        assert (await client.generate("hi", max_tokens=2).result()).token_ids == (100, 101)
    async with client_of(scheduler, other) as client:
        assert (await client.get_policy()).policy == "fifo"


async def test_with_nobody_at_any_address_a_call_fails_at_once(
    transport: str, scheduler: FakeScheduler, other: FakeScheduler
) -> None:
    await scheduler.stop()
    await other.stop()
    async with client_of(scheduler, other) as client:
        with pytest.raises(sage.UnavailableError):
            await client.generate("hi", max_tokens=2).result()
        with pytest.raises(sage.UnavailableError):
            await client.get_policy()


async def test_a_stream_goes_on_at_the_next_leader(
    transport: str, scheduler: FakeScheduler, other: FakeScheduler
) -> None:
    async def begins(
        request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        yield accepted(request)
        yield scheduled()
        yield tokens(0, 2)
        await asyncio.Event().wait()

    async def goes_on(
        request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        yield accepted(request, attached=True)
        for index in range(request.after_token, 4):
            yield tokens(index)
        yield finished(4)

    scheduler.generate, other.generate, other.leader = begins, goes_on, scheduler.address
    other._submitted = scheduler._submitted  # as if adopted
    async with client_of(scheduler, other) as client:
        stream = client.generate("hi", max_tokens=4)
        got: list[int] = []
        async for event in stream:
            if isinstance(event, sage.Tokens):
                got.extend(event.token_ids)
                if len(got) == 2:
                    await scheduler.stop()
                    other.leader = None
    assert got == [100, 101, 102, 103]


async def test_a_leader_that_is_silent_for_its_lease_is_left(
    monkeypatch: pytest.MonkeyPatch, scheduler: FakeScheduler, other: FakeScheduler
) -> None:
    monkeypatch.setenv("SAGE_SESSIONS", "1")
    scheduler.silence_s, scheduler.led, scheduler.dumb = 0.1, True, True

    async def wait(
        request: inference_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[inference_pb2.GenerateResponse]:
        yield accepted(request)
        await asyncio.Event().wait()

    scheduler.generate = wait
    async with client_of(scheduler, other) as client:
        assert (await client.generate("hi", max_tokens=2).result()).token_ids == (100, 101)
    assert len(other.requests) == 1


async def test_a_leader_of_an_earlier_epoch_is_not_listened_to(
    monkeypatch: pytest.MonkeyPatch, scheduler: FakeScheduler, other: FakeScheduler
) -> None:
    """It was stopped while another one led, goes on, and has not noticed yet."""
    monkeypatch.setenv("SAGE_SESSIONS", "1")
    scheduler.led = other.led = True
    scheduler.epoch, other.epoch = 9, 8
    async with client_of(scheduler, other) as client:
        await client.generate("hi", max_tokens=2).result()
        await scheduler.stop()
        request = asyncio.create_task(client.generate("hi", max_tokens=2).result())
        await eventually(lambda: len(other.sessions) > 1)
        assert not request.done()
        await scheduler.start(port=scheduler.port)
        assert (await request).token_ids == (100, 101)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("127.0.0.1:1,127.0.0.1:1", "twice"),
        ("127.0.0.1:1,nowhere", "'nowhere' is not host:port"),
        (",".join(f"127.0.0.1:{port}" for port in range(1, 18)), "17 addresses; the limit is 16"),
    ],
)
async def test_a_list_of_addresses_that_makes_no_sense_is_refused(address: str, what: str) -> None:
    with pytest.raises(sage.ConfigurationError, match=what):
        AsyncClient(address)
