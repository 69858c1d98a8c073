"""Calls the scheduler that leads, and another one where it does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import grpc

from sage_client._channels import Channels
from sage_client._connection import Connection
from sage_client._durations import Seconds, timeout_of
from sage_client._errors import NotLeaderError, SageError, WaitTimeoutError
from sage_client._generate_transport import RECOVERING_S
from sage_client._reconnect import Reconnect
from sage_client._retry import until_answered
from sage_client._status import error_from_rpc, is_transport_break

_R = TypeVar("_R")

TRY_S = 2.0
"""Least seconds for which one of several schedulers is waited for."""


class LeaderCalls:
    """Calls of one client, each to the scheduler that leads."""

    def __init__(
        self, connection: Connection, reconnect: Reconnect, *, timeout_s: float, stream_timeout_s: float
    ) -> None:
        """Check the connection's settings; the first call opens a channel.

        Raises:
            ConfigurationError: the settings are invalid.
        """
        self._connection = connection
        self._channels = Channels(connection)
        self._reconnect = reconnect
        self._timeout = timeout_s
        self._stream_timeout = stream_timeout_s

    async def _pages(
        self, method: Callable[[Channels], Callable[..., AsyncIterable[_R]]], request: object
    ) -> AsyncGenerator[_R, None]:
        """Yield the messages of a streamed answer."""

        async def begin(at: Channels) -> AsyncGenerator[_R, None]:
            metadata = self._connection.metadata()
            try:
                async for page in method(at)(request, timeout=self._stream_timeout, metadata=metadata):
                    yield page
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error, timeout_s=self._stream_timeout) from None

        async with aclosing(self._streamed(begin)) as pages:
            async for page in pages:
                yield page

    async def _streamed(self, begin: Callable[[Channels], AsyncGenerator[_R, None]]) -> AsyncGenerator[_R, None]:
        """Yield what a call streams; before its first message another scheduler is asked where one does not lead."""
        loop, channels, began = asyncio.get_running_loop(), self._channels, False
        end = loop.time() + self._timeout
        while True:
            turn = channels.turn
            try:
                async with aclosing(begin(channels)) as messages:
                    async for each in messages:
                        began = True
                        channels.answered()
                        yield each
                return
            except SageError as error:
                channels.failed(turn, error)
                pause_s = _pause_s(error, channels)
                if began or pause_s is None or loop.time() + pause_s >= end:
                    raise
            await asyncio.sleep(pause_s)

    def _call_timeout_s(self, timeout: Seconds | None) -> float:
        return timeout_of(timeout, None, default_s=self._timeout, grace_s=0.0)

    async def _repeated(
        self,
        method: Callable[[Channels], Callable[..., Awaitable[_R]]],
        request: object,
        timeout: float | None = None,
    ) -> _R:
        """Ask what may be asked twice, and again while the scheduler is away or recovers."""

        async def call(left_s: float) -> _R:
            return await self._ask(method, request, timeout=left_s)

        return await until_answered(call, self._reconnect, timeout or self._timeout)

    async def _ask(
        self,
        method: Callable[[Channels], Callable[..., Awaitable[_R]]],
        request: object,
        *,
        timeout: float | None = None,
        again: Callable[[], None] = lambda: None,
    ) -> _R:
        """Call the scheduler that leads: another one is asked where one does not, until ``timeout`` is over.

        A call may reach two schedulers, so it has to be one that does no more when it comes twice; ``again`` runs
        before it is sent again.
        """
        loop, channels = asyncio.get_running_loop(), self._channels
        limit_s = timeout or self._timeout
        end = loop.time() + limit_s
        try_s = limit_s if channels.alone else max(limit_s / len(channels.addresses), TRY_S)
        while True:
            turn, left_s = channels.turn, min(try_s, end - loop.time())
            try:
                answer = await method(channels)(request, timeout=left_s, metadata=self._connection.metadata())
            except grpc.aio.AioRpcError as error:
                failure = error_from_rpc(error, timeout_s=limit_s)
            else:
                channels.answered()
                return answer
            channels.failed(turn, failure)
            pause_s = _pause_s(failure, channels)
            if pause_s is None or loop.time() + pause_s >= end:
                raise failure
            again()
            await asyncio.sleep(pause_s)


def _pause_s(failure: SageError, channels: Channels) -> float | None:
    """Return after how many seconds a call is worth another try, at the address that is next; None if it is not."""
    if isinstance(failure, NotLeaderError):
        return failure.retry_after_s or RECOVERING_S
    silent = isinstance(failure, WaitTimeoutError) and not failure.reason
    if (silent or is_transport_break(failure)) and not channels.exhausted:
        return 0.0
    return None
