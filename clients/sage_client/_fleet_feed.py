"""Reads snapshots of the fleet and keeps only the newest for a slow caller."""

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
    """Yield the newest snapshot that ``call`` has delivered; cancel the call at the end.

    The call is read continuously: its connection would otherwise buffer old snapshots for a slow caller.

    Raises:
        WaitTimeoutError: nothing arrived for ``wait_s`` seconds.
        UnavailableError: no connection, a broken connection, or a closed client.
        SageError: an error of the scheduler.
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
    """Read until the call ends and put the error that ended it into ``newest``, for which the caller waits."""
    try:
        while True:
            _replace(newest, await _bounded(call.read, wait_s))
    except asyncio.CancelledError:  # either the call or this task was cancelled
        _replace(newest, UnavailableError("the client was closed"))
        raise
    except Exception as error:  # raised again by ``newest_snapshots``
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
