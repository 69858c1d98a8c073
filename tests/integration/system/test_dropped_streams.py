"""A stream that the application drops without closing it: its request is cancelled, and the engine says so."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable

import pytest

from sage_client import AsyncClient, Client, RequestState, Tokens
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.system.test_ending_early import LONG, assert_let_go

REQUEST = "dropped"


class AppError(Exception):
    """Raised by the application while it reads."""


async def leaves_the_loop(client: AsyncClient) -> None:
    stream = client.generate("Once", max_tokens=LONG, request_id=REQUEST)
    async for _ in stream.text():
        break


async def leaves_a_loop_over_events(client: AsyncClient) -> None:
    async for event in client.generate("Once", max_tokens=LONG, request_id=REQUEST):
        if isinstance(event, Tokens):
            break


async def raises_in_the_loop(client: AsyncClient) -> None:
    stream = client.generate("Once", max_tokens=LONG, request_id=REQUEST)
    with contextlib.suppress(AppError):
        async for _ in stream.text():
            raise AppError


async def keeps_it_in_a_cycle(client: AsyncClient) -> None:
    stream = client.generate("Once", max_tokens=LONG, request_id=REQUEST)
    cycle: list[object] = [stream]
    cycle.append(cycle)
    async for _ in stream.text():
        break


WAYS = (leaves_the_loop, leaves_a_loop_over_events, raises_in_the_loop, keeps_it_in_a_cycle)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_a_dropped_stream_cancels_its_request(
    way: Callable[[AsyncClient], Awaitable[None]], fleet: LocalFleet, one: LocalExecutor
) -> None:
    await way(fleet.client)
    gc.collect()
    await assert_let_go(fleet, one)
    assert one.engine.load().generation_tokens_total < LONG
    assert (await fleet.client.explain(REQUEST)).state is RequestState.CANCELLED


def blocking_leaves(client: Client) -> None:
    for _ in client.generate("Once", max_tokens=LONG, request_id=REQUEST).text():
        break


def blocking_raises(client: Client) -> None:
    stream = client.generate("Once", max_tokens=LONG, request_id=REQUEST)
    with contextlib.suppress(AppError):
        for _ in stream.text():
            raise AppError


@pytest.mark.parametrize("way", [blocking_leaves, blocking_raises], ids=lambda way: way.__name__)
async def test_a_stream_that_a_thread_drops_cancels_its_request(
    way: Callable[[Client], None], fleet: LocalFleet, one: LocalExecutor
) -> None:
    client = await asyncio.to_thread(Client, fleet.address)
    try:
        await asyncio.to_thread(way, client)
        gc.collect()
        await assert_let_go(fleet, one)
        assert one.engine.load().generation_tokens_total < LONG
        assert (await fleet.client.explain(REQUEST)).state is RequestState.CANCELLED
    finally:
        await asyncio.to_thread(client.close)


async def test_a_watch_that_is_dropped_gives_its_place_back(client: AsyncClient) -> None:
    """A client has at most 8 places."""
    for _ in range(20):
        async for _ in client.watch_fleet():
            break
        gc.collect()
        await asyncio.sleep(0)


async def test_a_stream_that_is_held_goes_on_after_a_loop_was_left(client: AsyncClient) -> None:
    stream = client.generate("Once", max_tokens=40)
    async for _ in stream.text():
        break
    gc.collect()
    assert (await stream.result()).usage.completion_tokens == 40


async def test_a_detached_request_goes_on_when_its_stream_is_dropped(fleet: LocalFleet, one: LocalExecutor) -> None:
    async for event in fleet.client.generate("Once", max_tokens=200, request_id=REQUEST, detached=True):
        if isinstance(event, Tokens):
            break
    gc.collect()
    again = fleet.client.generate("Once", max_tokens=200, request_id=REQUEST, detached=True)
    assert (await again.result()).usage.completion_tokens == 200
