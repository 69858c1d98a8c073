"""Refuses messages that cannot be decoded; without it each one would be logged with a stack and answered UNKNOWN."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from sage_wire.decoding import Undecodable, decoder
from sage_wire.handlers import Handler, rewrapped

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class DecodeInterceptor(grpc.aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT for messages that are not of their call's type."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, wrapped; None for an unknown method."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        return rewrapped(handler, unary=_unary, stream=_stream, decoder=decoder(handler.request_deserializer))


def _unary(behavior: Any) -> Any:
    async def handle(request: Any, context: Context) -> Any:
        await _refuse_undecodable(request, context)
        return await behavior(request, context)

    return handle


def _stream(behavior: Any) -> Any:
    async def write(request: Any, context: Context) -> None:
        checked = _decodable(request, context) if hasattr(request, "__aiter__") else request
        await _refuse_undecodable(checked, context)
        if asyncio.iscoroutinefunction(behavior):
            await behavior(checked, context)
            return
        async for response in behavior(checked, context):
            await context.write(response)

    return write


async def _decodable(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
    async for message in messages:
        await _refuse_undecodable(message, context)
        yield message


async def _refuse_undecodable(message: Any, context: Context) -> None:
    if isinstance(message, Undecodable):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"message: {message.why}")
