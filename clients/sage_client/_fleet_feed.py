"""Snapshots of the fleet as they come, the newest only: who reads slowly finds no backlog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import grpc

from sage.controlplane.v1 import admin_pb2
from sage_client._decode_fleet_snapshot import snapshot
from sage_client._errors import UnavailableError, WaitTimeoutError
from sage_client._fleet_snapshot import FleetSnapshot
from sage_client._status import error_from_rpc

WatchCall = grpc.aio.UnaryStreamCall[admin_pb2.WatchFleetRequest, admin_pb2.WatchFleetResponse]

_T = TypeVar("_T")


async def newest_snapshots(call: WatchCall, *, wait_s: float) -> AsyncGenerator[FleetSnapshot, None]:
    """Reads ``call`` without pause and yields what is newest when asked; cancels it on the way out.

    A connection buffers many snapshots, which a caller that takes a pause would otherwise have to read first.

    Raises:
        WaitTimeoutError: nothing came for ``wait_s`` seconds.
        UnavailableError: no connection, or it broke, or the client was closed meanwhile.
        SageError: as the scheduler says.
    """
    newest: asyncio.Queue[admin_pb2.FleetSnapshot | Exception] = asyncio.Queue(1)
    reader = asyncio.create_task(_read(call, newest, wait_s), name="fleet-feed")
    try:
        while True:
            found = await newest.get()
            if isinstance(found, Exception):
                raise found
            yield snapshot(found)
    finally:
        reader.cancel()
        call.cancel()


async def _read(call: WatchCall, newest: asyncio.Queue[admin_pb2.FleetSnapshot | Exception], wait_s: float) -> None:
    """However it ends, it says so: who waits for a snapshot waits for this alone."""
    try:
        while True:
            _replace(newest, await _bounded(call.read, wait_s))
    except asyncio.CancelledError:  # of the call, or of this task
        _replace(newest, UnavailableError("the client was closed"))
        raise
    except Exception as error:  # is raised where snapshots are read
        _replace(newest, error)


async def _bounded(read: Callable[[], Awaitable[object]], wait_s: float) -> admin_pb2.FleetSnapshot:
    try:
        async with asyncio.timeout(wait_s):
            response = await read()
    except TimeoutError:
        raise WaitTimeoutError(f"the scheduler sent nothing for {wait_s:g} s") from None
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from None
    if not isinstance(response, admin_pb2.WatchFleetResponse):
        raise UnavailableError("the scheduler ended the stream")
    return response.snapshot


def _replace(newest: asyncio.Queue[_T], value: _T) -> None:
    if newest.full():
        newest.get_nowait()
    newest.put_nowait(value)
