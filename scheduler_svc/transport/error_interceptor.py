"""Turns every exception of a handler into a gRPC status, so that handlers simply raise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from sage_wire.batches import FILE_PIECE_BYTES
from sage_wire.errors import ErrorReason
from sage_wire.handlers import Handler, rewrapped
from sage_wire.metadata import TRACEPARENT, trace_headers
from sage_wire.protocol import MAX_MESSAGE_BYTES
from scheduler_svc.access.caller import caller
from scheduler_svc.transport.bounded_parsing import SMALL_MESSAGE_BYTES, Unparsed, bounded, parsed
from scheduler_svc.transport.client_sessions.limits import MESSAGE_BYTES
from scheduler_svc.transport.errors import OnEnd, reason_of
from scheduler_svc.transport.health import EXECUTOR
from scheduler_svc.transport.held_message import HeldMessage, holding
from scheduler_svc.transport.refusals import answered
from scheduler_svc.transport.submissions import key_of

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


CARRY_PROMPTS = frozenset({"Generate", "Session", "Submit", "Embed", "UploadFile"})
"""Calls whose message may be large."""

SIZE_LIMITS = {"Session": MESSAGE_BYTES, "UploadFile": FILE_PIECE_BYTES + SMALL_MESSAGE_BYTES}
"""Bounds in bytes of those whose messages have one of their own."""


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wrap every handler so that what it raises reaches the client as a status with details."""

    def __init__(self, on_end: OnEnd = lambda method, reason: None) -> None:
        self._on_end = on_end

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, wrapped; None for an unknown method."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return None
        return rewrapped(
            handler,
            unary=lambda call: self._unary(call, method),
            stream=lambda call: self._stream(call, method),
            decoder=_decoder(handler, method),
        )

    def _unary(self, behavior: Any, method: str) -> Any:
        async def handle(request: Any, context: Context) -> Any:
            try:
                return await behavior(_checked(request), context)
            except Exception as error:
                about = _about(request, context)
                del request
                await self._refuse(about, context, method, error)

        return handle

    def _stream(self, behavior: Any, method: str) -> Any:
        """Wrap a streaming handler: ours are coroutines that write to the context, those of libraries yield."""

        async def write(request: Any, context: Context) -> None:
            try:
                if asyncio.iscoroutinefunction(behavior):
                    await behavior(_checked(request), context)
                    return
                # gRPC would log a stack for a client that leaves while a response waits for it.
                async for response in behavior(_checked(request), context):
                    await context.write(response)
            except Exception as error:
                about = _about(request, context)
                del request
                await self._refuse(about, context, method, error)

        return write

    async def _refuse(self, about: dict[str, str], context: Context, method: str, error: Exception) -> None:
        """End the call with the status that stands for ``error``; INTERNAL ones are logged with their stack.

        ``about``: for the log.  The callers drop the call's message before: gRPC keeps the exception that ends a call
        in a cycle with the call, and the frames in its traceback keep what they name until garbage is collected.
        """
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, grpc.aio.InternalError):
            # Raised by a write whose client has left, before gRPC cancels this coroutine for it.
            log.debug("call %s is over: %s", method, error, extra=about)
            raise asyncio.CancelledError from None
        self._on_end(method, reason_of(error) or ErrorReason.INTERNAL)
        wire = rpc_status.to_status(answered(error, method, lambda: about))
        await context.abort(wire.code, wire.details, wire.trailing_metadata)


def _decoder(handler: Handler, method: str) -> Callable[[bytes], Any] | None:
    """Return the deserializer of a call's requests, which is bounded as its service and kind ask for.

    A message with a bound of its own is not walked: 1 MiB is parsed in less time than its parts are counted, and many
    requests in one message have more parts than one may have.
    """
    service, name = method.rsplit("/", 1)
    of_executors = service == f"/{EXECUTOR}"
    small = not of_executors and name not in CARRY_PROMPTS
    size_limit = SMALL_MESSAGE_BYTES if small else SIZE_LIMITS.get(name, MAX_MESSAGE_BYTES)
    walk = not of_executors and name not in SIZE_LIMITS
    decode = bounded(handler.request_deserializer, walk=walk, size_limit=size_limit)
    if decode is None or handler.request_streaming or name not in CARRY_PROMPTS:
        return decode
    return holding(decode, Message)


def _checked(request: Any) -> Any:
    """Return a call's request, or its stream of requests, checked for what was not parsed."""
    if isinstance(request, Unparsed):
        raise request.error()
    if isinstance(request, HeldMessage):
        return request.take()
    return parsed(request) if hasattr(request, "__aiter__") else request


def _about(request: Any, context: Context) -> dict[str, str]:
    """Return the ``extra`` of log lines about a call.

    It holds the request, if the message names one, and the caller's traceparent, if it sent one.
    """
    request_id = getattr(request, "request_id", "")  # a call that streams its requests has none
    key = key_of(_tenant(getattr(request, "tenant", "")), request_id)
    traceparent = trace_headers(context.invocation_metadata()).get(TRACEPARENT, "")
    return {"request": str(key) if request_id else "", "traceparent": traceparent}


def _tenant(named: str) -> str:
    """Return the tenant that the message is about, which may be the caller's without being named."""
    try:
        return caller().tenant_of(named) or named
    except LookupError:  # who calls is what was refused
        return named
