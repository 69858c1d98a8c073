"""Carries each request over a call of its own: ``Generate``, or ``Attach`` for detached work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import grpc

from sage.controlplane.v1 import inference_pb2
from sage_client._call import Call
from sage_client._errors import (
    InternalError,
    JournalUnavailableError,
    NotLeaderError,
    ProtocolError,
    RecoveringError,
    RequestCancelledError,
    SageError,
)
from sage_client._reconnect import Reconnect, leader_pause_s
from sage_client._route import Route
from sage_client._status import error_from_rpc, is_transport_break

RECOVERING_S = 0.25
"""Seconds after which a request is sent again to a scheduler that recovers or stands by, and does not say when."""

Metadata = tuple[tuple[str, str], ...]
GenerateCall = grpc.aio.UnaryStreamCall[inference_pb2.GenerateRequest, inference_pb2.GenerateResponse]
AttachCall = grpc.aio.UnaryStreamCall[inference_pb2.AttachRequest, inference_pb2.AttachResponse]


class EventCall(Protocol):
    """A call that gives a request's events."""

    async def read(self) -> object:
        """Return the next GenerateResponse; ``grpc.aio.EOF`` at the end.  Raises AioRpcError."""
        ...

    def cancel(self) -> bool:
        """End the call."""
        ...


class AttachEvents:
    """Gives the events of an ``Attach`` call.  Implements ``EventCall``."""

    def __init__(self, call: AttachCall) -> None:
        self._call = call

    async def read(self) -> object:
        """Return the next GenerateResponse; ``grpc.aio.EOF`` at the end.  Raises AioRpcError."""
        response = await self._call.read()
        return response.event if isinstance(response, inference_pb2.AttachResponse) else response

    def cancel(self) -> bool:
        """End the call."""
        return self._call.cancel()


Opener = Callable[[inference_pb2.GenerateRequest, Metadata], EventCall]


class GenerateTransport:
    """Reads a call per request, in a task of its own, and reattaches after a broken connection."""

    def __init__(self, open_call: Opener, reconnect: Reconnect, route: Route, *, detached: bool = False) -> None:
        """``detached``: the requests are detached work, for which a scheduler whose journal is away is waited for."""
        self._open = open_call
        self._reconnect = reconnect
        self._route = route
        self._detached = detached
        self._readers: dict[Call, _Reader] = {}

    def start(self, call: Call) -> None:
        """Send the request, or attach to it at the call's position."""
        call.carried_by(self)
        reader = _Reader(call, self._open, self._reconnect, self._route, detached=self._detached)
        self._readers[call] = reader
        reader.task.add_done_callback(lambda task: self._ended(call, task))

    def leave(self, call: Call) -> None:
        if reader := self._readers.get(call):
            reader.stop()

    def pause(self, call: Call) -> None:
        if reader := self._readers.get(call):
            reader.going.clear()

    def resume(self, call: Call) -> None:
        if reader := self._readers.get(call):
            reader.going.set()

    def _ended(self, call: Call, task: asyncio.Task[None]) -> None:
        """Note that nothing reads a call any more; end it if a defect is the reason."""
        self._readers.pop(call, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            call.end_with(InternalError("reading the request's stream failed"))
            what = f"request {call.request_id} could not be read"
            task.get_loop().call_exception_handler({"message": what, "exception": error})

    def close(self) -> None:
        """End all calls."""
        for call in list(self._readers):
            call.end_with(RequestCancelledError("the client was closed before the request's end"))


class _Reader:
    """Reads one request's messages until its end.

    gRPC keeps a call alive until it has ended, also when nobody reads it, so ``stop`` cancels it.
    """

    def __init__(self, call: Call, open_call: Opener, reconnect: Reconnect, route: Route, *, detached: bool) -> None:
        self._detached = detached
        self._call = call
        self._route = route
        self._open = open_call
        self._reconnect = reconnect
        self._stopped = False
        self.going = asyncio.Event()  # cleared while the call is paused
        if not call.paused:
            self.going.set()
        self._begin()
        self.task = asyncio.create_task(self._run(), name=f"read-{call.request_id}")

    def stop(self) -> None:
        self._stopped = True
        self._rpc.cancel()
        if self.task is not asyncio.current_task():
            self.task.cancel()

    async def _run(self) -> None:
        while (failure := await self._read()) is not None:
            self._route.failed(self._turn, failure)
            pause_s = self._pause_s(failure)
            if pause_s is None:
                self._call.take_failure(failure)
                return
            if not isinstance(failure, RecoveringError):
                self._call.may_be_known()
            await asyncio.sleep(pause_s)
            self._begin()

    def _begin(self) -> None:
        """Send the request to the scheduler that is believed to lead."""
        self._turn = self._route.turn
        self._rpc = self._open(self._request(), self._call.trace)

    def _pause_s(self, failure: SageError) -> float | None:
        """Return after how many seconds the request is sent again; None if the failure is its end."""
        if isinstance(failure, RecoveringError) or (self._detached and isinstance(failure, JournalUnavailableError)):
            return failure.retry_after_s or RECOVERING_S
        if isinstance(failure, NotLeaderError):
            if not self._call.may_wait_for_leader():
                return None
            return leader_pause_s(failure.retry_after_s or RECOVERING_S, self._call.leaderless_s)
        may_ask_again = self._call.accepted or not self._route.exhausted
        may_ask_again = may_ask_again or self._call.may_be_sent_again(self._reconnect.submit_s)
        broken = is_transport_break(failure) and may_ask_again
        if broken and self._call.count_break(self._reconnect.attempts):
            pause_s = self._reconnect.delay_s(self._call.breaks)
            return pause_s if self._route.exhausted else min(pause_s, self._reconnect.first_delay_s)
        return None

    async def _read(self) -> SageError | None:
        """Read messages until the call's end; return why the connection or the request failed."""
        try:
            while (response := await self._rpc.read()) is not grpc.aio.EOF:
                self._route.answered()
                self._take(cast(inference_pb2.GenerateResponse, response))
                if not self._call.over:
                    await self.going.wait()
        except grpc.aio.AioRpcError as error:
            return error_from_rpc(error, request_id=self._call.request_id)
        except asyncio.CancelledError:
            if not self._stopped and not self._call.over:
                self._call.end_with(RequestCancelledError("the connection was closed before the request's end"))
            return None
        if not self._call.over:
            self._call.end_with(ProtocolError("the scheduler ended the stream without Finished"))
        return None

    def _take(self, response: inference_pb2.GenerateResponse) -> None:
        kind = response.WhichOneof("event")
        if kind == "tokens":
            self._call.take_tokens(response.tokens)
        elif kind == "scheduled":
            self._call.take_scheduled(response.scheduled)
        elif kind == "accepted":
            self._call.take_accepted(response.accepted)
        elif kind == "finished":
            self._call.take_finished(response.finished)
        else:
            self._call.end_with(ProtocolError("the scheduler sent an event without content"))

    def _request(self) -> inference_pb2.GenerateRequest:
        """Return the request, continued at the call's position."""
        if not (self._call.accepted and self._call.position):
            return self._call.request
        request = inference_pb2.GenerateRequest()
        request.CopyFrom(self._call.request)
        request.after_token = self._call.position
        if self._call.has_output:
            request.after_attempt.epoch = self._call.output_attempt.epoch
            request.after_attempt.number = self._call.output_attempt.number
        return request
