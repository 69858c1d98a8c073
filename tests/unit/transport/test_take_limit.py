"""A client that takes no message loses its place; one that is slow keeps it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scheduler_svc.domain.errors import LimitReached
from scheduler_svc.transport.take_limit import Writing

LIMIT_S = 0.05


async def test_what_a_stream_holds_is_let_go_and_the_stream_ends_when_its_client_reads_on() -> None:
    let_go, reads_on = asyncio.Event(), asyncio.Event()

    async def later(message: Any) -> None:
        await reads_on.wait()

    async def stream() -> None:
        with Writing(later, let_go.set, LIMIT_S) as write:
            await write("hello")

    streaming = asyncio.create_task(stream())
    async with asyncio.timeout(5):
        await let_go.wait()
        assert not streaming.done(), "nothing can be sent behind the message"
        reads_on.set()
        with pytest.raises(LimitReached, match=r"^the client took no message for 0\.05 s$"):
            await streaming


async def test_waiting_for_the_next_message_is_no_delay_of_the_client() -> None:
    taken: list[str] = []
    stalls: list[None] = []

    async def at_once(message: str) -> None:
        taken.append(message)

    with Writing(at_once, lambda: stalls.append(None), LIMIT_S) as write:
        await write("a")
        await asyncio.sleep(4 * LIMIT_S)
        await write("b")
    assert (taken, stalls) == (["a", "b"], [])


async def test_a_stream_that_is_over_is_not_watched() -> None:
    stalls: list[None] = []

    async def never(message: Any) -> None:
        await asyncio.Event().wait()

    async def stream() -> None:
        with Writing(never, lambda: stalls.append(None), LIMIT_S) as write:
            await write("hello")

    task = asyncio.create_task(stream())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(4 * LIMIT_S)
    assert task.cancelled()
    assert stalls == []
