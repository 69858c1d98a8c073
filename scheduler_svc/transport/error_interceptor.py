"""Turns every exception of a handler into a gRPC status, so that handlers simply raise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from grpc_status import rpc_status

from sage_wire.errors import ErrorReason
from sage_wire.metadata import TRACEPARENT, trace_headers
from sage_wire.protocol import MAX_MESSAGE_BYTES
from scheduler_svc.access.caller import caller
from scheduler_svc.transport.bounded_parsing import SMALL_MESSAGE_BYTES, Unparsed, bounded, parsed
from scheduler_svc.transport.errors import reason_of, to_status
from scheduler_svc.transport.handlers import Handler, rewrapped
from scheduler_svc.transport.health import EXECUTOR
from scheduler_svc.transport.submissions import key_of

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


CARRY_PROMPTS = frozenset({"Generate", "Submit", "Embed", "SubmitBatch"})
"""Calls whose message may be large."""


OnEnd: TypeAlias = Callable[[str, ErrorReason], None]
"""Told of each call that ends with an error: its method and the reason."""


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
                await self._refuse(request, context, method, error)

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
                await self._refuse(request, context, method, error)

        return write

    async def _refuse(self, request: Any, context: Context, method: str, error: Exception) -> None:
        """End the call with the status that stands for ``error``; INTERNAL ones are logged with their stack."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if isinstance(error, grpc.aio.InternalError):
            # Raised by a write whose client has left, before gRPC cancels this coroutine for it.
            log.debug("call %s is over: %s", method, error, extra=_about(request, context))
            raise asyncio.CancelledError from None
        status = to_status(error)
        if status.code == grpc.StatusCode.INTERNAL.value[0]:
            log.error("call %s failed", method, exc_info=error, extra=_about(request, context))
        self._on_end(method, reason_of(error) or ErrorReason.INTERNAL)
        # The outcome of a request is kept for clients that attach later.  Its traceback would keep the frames alive,
        # and with them the prompt.
        error.__traceback__ = None
        wire = rpc_status.to_status(status)
        await context.abort(wire.code, wire.details, wire.trailing_metadata)


def _decoder(handler: Handler, method: str) -> Callable[[bytes], Any] | None:
    """Return the deserializer of a call's requests, which is bounded as its service and kind ask for."""
    service, name = method.rsplit("/", 1)
    of_executors = service == f"/{EXECUTOR}"
    small = not of_executors and name not in CARRY_PROMPTS
    size_limit = SMALL_MESSAGE_BYTES if small else MAX_MESSAGE_BYTES
    return bounded(handler.request_deserializer, walk=not of_executors, size_limit=size_limit)


def _checked(request: Any) -> Any:
    """Return a call's request, or its stream of requests, checked for what was not parsed."""
    if isinstance(request, Unparsed):
        raise request.error()
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
