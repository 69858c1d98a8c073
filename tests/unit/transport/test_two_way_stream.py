"""A stream that is read and written at the same time ends with its status, whatever it is doing."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from sage_wire.errors import ErrorReason
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.outbox import Outbox
from scheduler_svc.transport.two_way_stream import both_ways, write_all


class Peer:
    """Takes a message once it reads on; holds what was written whole."""

    def __init__(self) -> None:
        self.began, self.reads_on = asyncio.Event(), asyncio.Event()
        self.taken: list[str] = []
        self.fails = False

    async def write(self, message: str) -> None:
        self.began.set()
        await self.reads_on.wait()
        if self.fails:
            raise RuntimeError("the call is over")
        self.taken.append(message)


class Stream:
    """A stream whose reader ends as it is told to."""

    def __init__(self, peer: Peer) -> None:
        self.outbox: Outbox[str] = Outbox(10)
        self.stuck = asyncio.Event()
        self.broken: list[str] = []
        self._peer = peer

    def run(self, read: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        write = self._peer.write
        stream = both_ways(
            read=read, write=lambda: write_all(self.outbox, write), broken=self.broken.append, stuck=self.stuck
        )
        return asyncio.ensure_future(stream)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_no_status_is_sent_while_a_message_is_on_its_way() -> None:
    """gRPC would log a stack, and the peer would never get the status."""
    peer = Peer()
    stream = Stream(peer)
    stream.outbox.put("hello")
    stream.outbox.put("more")

    async def refuse() -> None:
        await peer.began.wait()
        raise WireError(ErrorReason.INVALID_REGISTRATION, "no")

    running = stream.run(refuse)
    async with asyncio.timeout(5):
        while not stream.broken:
            await asyncio.sleep(0)
        assert not running.done()
        peer.reads_on.set()
        with pytest.raises(WireError):
            await running
    assert peer.taken == ["hello"], "whole, and nothing after it"


async def test_a_peer_that_does_not_read_holds_one_message() -> None:
    peer = Peer()
    stream = Stream(peer)
    for number in range(3):
        stream.outbox.put(str(number))
    running = stream.run(forever)
    async with asyncio.timeout(5):
        await peer.began.wait()
        stream.stuck.set()
        while not stream.broken:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert stream.broken == ["the executor does not read"]
        assert not stream.outbox._messages, "what waited behind it is dropped"
        peer.reads_on.set()
        await running


async def test_a_peer_that_leaves_ends_the_stream() -> None:
    peer = Peer()
    stream = Stream(peer)
    stream.outbox.put("hello")
    running = stream.run(forever)
    await peer.began.wait()
    running.cancel()  # what gRPC does; the write fails then
    peer.reads_on.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    assert stream.broken == ["the connection was lost"]


async def test_a_write_that_fails_after_its_stream_is_over_is_nobodys_error() -> None:
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    peer = Peer()
    stream = Stream(peer)
    stream.outbox.put("hello")
    running = stream.run(forever)
    await peer.began.wait()
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    peer.fails = True
    peer.reads_on.set()
    await asyncio.sleep(0.01)
    gc.collect()
    assert unhandled == []
