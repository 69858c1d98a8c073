"""The gRPC call that a stream reads from now, and its end when the application drops the stream."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable

import grpc

from sage.controlplane.v1 import inference_pb2

GenerateCall = grpc.aio.UnaryStreamCall[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]
Opener = Callable[[inference_pb2.GenerateRequest], GenerateCall]


class CurrentCall:
    """Holds the call of a stream; a reattach replaces it.

    gRPC keeps a call alive until it has ended, also when nobody reads it.  So ``cancel_when_dropped`` ties the call to
    the stream that reads it.
    """

    def __init__(self, request: inference_pb2.GenerateRequest, open_call: Opener) -> None:
        self._open = open_call
        self._loop = asyncio.get_running_loop()
        self.call = open_call(request)

    def reopen(self, request: inference_pb2.GenerateRequest) -> None:
        """Replace the call, which has ended, by a new one."""
        self.call = self._open(request)

    def cancel_when_dropped(self, stream: object) -> None:
        """Cancel the call once ``stream`` is garbage, from the thread that collects it.

        ``stream`` must not be reachable from this object.  At the interpreter's exit nothing is done: the connection
        ends with the process.
        """
        weakref.finalize(stream, self._dropped).atexit = False

    def _dropped(self) -> None:
        if self.call.done():
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(self.call.cancel)
