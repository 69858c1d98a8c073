"""Who reads snapshots slowly gets the newest, and every way it can end is an error of the SDK's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from sage.controlplane.v1 import admin_pb2
from sage_client import FleetSnapshot, SageError, UnavailableError, WaitTimeoutError
from sage_client._fleet_feed import newest_snapshots


class Call:
    """Gives what it is told to, as fast as it is read; then waits."""

    def __init__(self, *epochs: int, ends: bool = False) -> None:
        self.left = list(epochs)
        self.ends = ends
        self.drained = asyncio.Event()
        self.cancelled = False

    async def read(self) -> Any:
        if self.left:
            return admin_pb2.WatchFleetResponse(snapshot=admin_pb2.FleetSnapshot(epoch=self.left.pop(0)))
        self.drained.set()
        if self.ends:
            return grpc.aio.EOF
        return await asyncio.Event().wait()

    def cancel(self) -> None:
        self.cancelled = True


def feed(call: Call, *, wait_s: float = 10.0) -> AsyncGenerator[FleetSnapshot, None]:
    return newest_snapshots(call, wait_s=wait_s)  # type: ignore[arg-type]


async def test_the_newest_is_given_and_the_others_are_dropped() -> None:
    call = Call(1, 2, 3, 4)
    snapshots = feed(call)
    assert (await anext(snapshots)).epoch == 4
    await snapshots.aclose()
    assert call.cancelled


async def test_a_stream_that_ends_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="ended the stream"):
        async for _ in feed(Call(1, ends=True)):
            pass


async def test_silence_is_an_error_too() -> None:
    with pytest.raises(WaitTimeoutError, match="sent nothing for"):
        await anext(feed(Call(), wait_s=0.01))


async def test_every_error_is_one_of_the_sdks() -> None:
    with pytest.raises(SageError):
        async for _ in feed(Call(ends=True)):
            pass


class ClosedUnderneath(Call):
    """As a call is whose channel is closed: its reads are cancelled."""

    async def read(self) -> Any:
        raise asyncio.CancelledError


class Defective(Call):
    async def read(self) -> Any:
        raise RuntimeError("a defect")


async def test_who_waits_while_the_client_is_closed_is_told() -> None:
    with pytest.raises(UnavailableError, match="the client was closed"):
        async with asyncio.timeout(5):
            await anext(feed(ClosedUnderneath()))


async def test_nothing_ends_the_reader_unsaid() -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        async with asyncio.timeout(5):
            await anext(feed(Defective()))
