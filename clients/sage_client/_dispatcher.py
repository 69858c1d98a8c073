"""Carries all requests of one client over one session, which it opens, keeps alive and opens again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable

import grpc

from sage.controlplane.v1 import inference_pb2
from sage_client._call import Call
from sage_client._errors import InternalError, NotLeaderError, RecoveringError, RequestCancelledError, SageError
from sage_client._generate_transport import RECOVERING_S, GenerateTransport
from sage_client._reconnect import Reconnect, leader_pause_s
from sage_client._route import Route
from sage_client._session_end import EndKind, SessionEnd
from sage_client._session_outbox import HANDLES_LIMIT
from sage_client._session_stream import SessionCall, SessionStream, SessionTimes

SUBMIT_LIMIT_BYTES = 256 * 1024
"""Largest request that goes through a session: a larger one would hold up the others."""


SEVERAL = SessionTimes(open_s=2.0)
"""Bounds of waits where another scheduler may lead meanwhile."""


class Dispatcher:
    """Carries calls over a session that lives as long as the client and is opened by the first call.

    One task reads the stream and opens the next one, one task writes.  Requests that do not fit go through Generate,
    and all do once the scheduler answered that it does not implement sessions.
    """

    def __init__(
        self,
        open_session: Callable[[], SessionCall],
        generate: GenerateTransport,
        reconnect: Reconnect,
        route: Route,
        *,
        enabled: bool = True,
        times: SessionTimes | None = None,
    ) -> None:
        self._open = open_session
        self._generate = generate
        self._reconnect = reconnect
        self._route = route
        self._enabled = enabled
        self._times = times or (SessionTimes() if route.alone else SEVERAL)
        self._loop: asyncio.AbstractEventLoop | None = None  # until the first call
        self._live: dict[Call, None] = {}  # in the order of their start
        self._sent: set[Call] = set()  # live calls that the scheduler may know
        self._stream: SessionStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._failures = 0  # streams that broke before their first frame, one after the other
        self._leaderless_since: float | None = None  # when a scheduler said first, since then, that it does not lead
        self._closed = False

    def start(self, call: Call) -> None:
        """Send the call's request."""
        stuck = self._stream is not None and self._stream.stuck
        full = stuck or len(self._live) >= HANDLES_LIMIT
        if not self._enabled or self._closed or full or call.request.ByteSize() > SUBMIT_LIMIT_BYTES:
            self._generate.start(call)
            return
        call.carried_by(self)
        self._live[call] = None
        if self._stream is not None:
            self._stream.begin(call)
        elif self._task is None:
            self._loop = asyncio.get_running_loop()
            # The context is empty, so that the session belongs to no span of the request that opens it.
            self._task = self._loop.create_task(self._run(), name="sage-session", context=contextvars.Context())

    def leave(self, call: Call) -> None:
        """Let go of a call."""
        self._forget(call)
        if self._stream is not None:
            self._stream.leave(call)

    def pause(self, call: Call) -> None:
        """Stop a call's output."""
        if self._stream is not None:
            self._stream.pause(call, True)

    def resume(self, call: Call) -> None:
        """Go on with a call's output; attach to the request again if the scheduler gave up the handle meanwhile."""
        if self._stream is None:
            return
        if call.parked is not None and not self._stream.carries(call):
            self._stream.begin(call)
        else:
            self._stream.pause(call, False)

    def finished(self, call: Call, message: inference_pb2.Finished) -> None:
        """End a call whose request ended by itself."""
        self._forget(call)
        call.take_finished(message)

    def failed(self, call: Call, failure: SageError) -> None:
        """End a call whose request failed.

        Keep one whose handle was given up because it is paused, and one that the scheduler asks to come again for.
        """
        waits = isinstance(failure, NotLeaderError) and call.may_wait_for_leader()
        if waits or isinstance(failure, RecoveringError):
            self._sent.add(call)
            asyncio.get_running_loop().call_later(_retry_s(failure), self._begin_again, call)
        elif call.paused and call.accepted and failure.status == grpc.StatusCode.RESOURCE_EXHAUSTED.name:
            call.parked = failure
        else:
            self._forget(call)
            call.take_failure(failure)

    def held_back(self, call: Call) -> None:
        """Carry a call through Generate that the stream could not send."""
        self._forget(call)
        self._generate.start(call)

    def _begin_again(self, call: Call) -> None:
        if call in self._live and self._stream is not None and not self._stream.carries(call):
            self._stream.begin(call)

    async def close(self) -> None:
        """End all calls and the session."""
        self._closed = True
        for call in list(self._live):
            call.end_with(RequestCancelledError("the client was closed before the request's end"))
        task = self._task
        if task is None:
            return
        if self._stream is not None:
            self._stream.bye()
            await asyncio.wait([task], timeout=2 * self._times.bye_s)
        task.cancel()
        await asyncio.wait([task])

    def abandon(self) -> None:
        """End the session of a client that is garbage; safe from any thread."""
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its connections with it
            self._loop.call_soon_threadsafe(self._abandon)

    def _abandon(self) -> None:
        self._closed = True
        if self._stream is not None:
            self._stream.bye()

    async def _run(self) -> None:
        try:
            while self._live and not self._closed:
                await self._run_stream()
        finally:
            self._task = self._stream = None
            for call in list(self._live):  # only if the loop above raised
                call.end_with(InternalError("the client's session ended unexpectedly"))

    async def _run_stream(self) -> None:
        """Run one stream to its end, then wait until it is time for the next one."""
        turn = self._route.turn
        self._stream = stream = SessionStream(self._open(), self._times, self, self._route)
        self._begin_all(stream)
        end = await stream.run()
        self._stream = None
        self._failures = 0 if stream.frames else self._failures + 1
        if stream.opened:
            self._leaderless_since = None
        self._route.failed(turn, end.error)
        self._settle(end, opened=stream.opened)
        if self._live and not self._closed:
            await asyncio.sleep(self._pause_s(end))

    def _pause_s(self, end: SessionEnd) -> float:
        pause_s = self._reconnect.delay_s(self._failures + 1)
        if isinstance(end.error, NotLeaderError):
            now = asyncio.get_running_loop().time()
            self._leaderless_since = self._leaderless_since or now
            return min(pause_s, leader_pause_s(_retry_s(end.error), now - self._leaderless_since))
        return pause_s if self._route.exhausted else min(pause_s, self._reconnect.first_delay_s)

    def _begin_all(self, stream: SessionStream) -> None:
        # In a function of its own: a frame that waits would keep the last call, and through it the client, alive.
        for call in self._live:
            if call.parked is None or not call.paused:
                stream.begin(call)

    def _settle(self, end: SessionEnd, *, opened: bool) -> None:
        """Decide for each live call: keep it for the next stream, move it to Generate, or end it."""
        if end.kind is EndKind.UNSUPPORTED:
            self._enabled = False
        if opened or end.kind is EndKind.UNSETTLED:
            self._sent.update(self._live)
        for call in list(self._live):
            if call in self._sent:
                call.may_be_known()
            may_reattach = self._may_reattach(call, end)
            if end.kind in (EndKind.UNSUPPORTED, EndKind.FULL):
                self._forget(call)
                self._generate.start(call)
            elif end.kind is EndKind.FINAL or not may_reattach:
                self._forget(call)
                call.take_failure(end.error_of(call.request_id))

    def _may_reattach(self, call: Call, end: SessionEnd) -> bool:
        if isinstance(end.error, NotLeaderError):
            return call.may_wait_for_leader()
        known = call in self._sent or not self._route.exhausted
        may_come_again = known or call.may_be_sent_again(self._reconnect.submit_s)
        return may_come_again and call.count_break(self._reconnect.attempts)

    def _forget(self, call: Call) -> None:
        self._live.pop(call, None)
        self._sent.discard(call)


def _retry_s(failure: SageError) -> float:
    return getattr(failure, "retry_after_s", None) or RECOVERING_S
