"""Wraps the handler of an RPC, whatever its kind, for interceptors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Wrap = Callable[[Any], Any]


def rewrapped(handler: Handler, *, unary: Wrap, stream: Wrap, decoder: Callable[[bytes], Any] | None) -> Handler:
    """Return the handler with its behavior wrapped: ``unary`` where one response is returned, else ``stream``.

    ``decoder``: of its requests; None: it gets them as bytes.
    """
    coders = decoder, handler.response_serializer
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(unary(handler.unary_unary), *coders)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(unary(handler.stream_unary), *coders)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(stream(handler.unary_stream), *coders)
    return grpc.stream_stream_rpc_method_handler(stream(handler.stream_stream), *coders)
