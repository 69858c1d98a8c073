"""One stream of ``InferenceService.Session``, from Open to its end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol, cast

import grpc

from sage.controlplane.v1 import inference_pb2
from sage_client._call import Call
from sage_client._decode import seconds
from sage_client._errors import NotLeaderError, ProtocolError, SageError
from sage_client._route import Route
from sage_client._session_end import EndKind, SessionEnd, broken, end_from_rpc
from sage_client._session_frame import deliver_output
from sage_client._session_outbox import UNACCEPTED_LIMIT, SessionOutbox
from sage_client._status import error_from_status

SessionCall = grpc.aio.StreamStreamCall[inference_pb2.SessionRequest, inference_pb2.SessionResponse]

ACKNOWLEDGE_EVERY = 8
PINGS_IN_SILENCE = 3
HANDLE_LAST = 2**32 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionTimes:
    """Bounds of a session's waits, in seconds."""

    open_s: float = 10.0  # for Opened
    silence_s: float = 15.0  # without a message of the scheduler, though it is pinged at a third of it
    acknowledge_s: float = 0.5  # from a frame to its acknowledgement, which the contract wants within 1 s
    held_s: float = 1.0  # for which requests are held back while the scheduler accepts no other
    bye_s: float = 1.0  # for the scheduler to end the stream after Bye


class SessionOwner(Protocol):
    """Is told which requests a stream carries no longer."""

    def finished(self, call: Call, message: inference_pb2.Finished) -> None:
        """Take the end of a request that ended by itself."""

    def failed(self, call: Call, failure: SageError) -> None:
        """Take the end of a request that was refused or ended otherwise."""

    def held_back(self, call: Call) -> None:
        """Carry a request otherwise that the stream could not send."""


class SessionStream:
    """Reads and writes one stream, and knows its handles.

    Attributes:
        opened: whether Opened came.
        frames: number of the latest frame; 0 before the first.
        stuck: whether as many requests as may be wait for their acceptance and none gets it: for a model to load.
    """

    def __init__(self, rpc: SessionCall, times: SessionTimes, owner: SessionOwner, route: Route) -> None:
        self.opened = False
        self.frames = 0
        self.stuck = False
        self._rpc = rpc
        self._times = times
        self._owner = owner
        self._route = route
        self._outbox = SessionOutbox()
        self._calls: dict[int, Call] = {}
        self._handles: dict[Call, int] = {}
        self._last_handle = 0
        self._ending: SessionEnd | None = None  # why this side ends the stream
        self._pings = 0
        self._unanswered = 0  # pings since the scheduler's latest message
        self._silence_s = times.silence_s  # the same without a message of the scheduler, though it is pinged
        self._ping_every_s = times.silence_s / PINGS_IN_SILENCE
        self._loop = asyncio.get_running_loop()
        self._settled = 0  # handles that were accepted, ended or left
        self._holding: asyncio.TimerHandle | None = None
        self._acknowledging: asyncio.TimerHandle | None = None
        self._pinging: asyncio.TimerHandle | None = None

    async def run(self) -> SessionEnd:
        """Write and read until the stream ends; return why it did."""
        writer = asyncio.create_task(self._write(), name="sage-session-writer")
        try:
            return await self._read()
        finally:
            writer.cancel()
            self._rpc.cancel()
            for timer in (self._acknowledging, self._pinging, self._holding):
                if timer is not None:
                    timer.cancel()

    def begin(self, call: Call) -> None:
        """Submit a call's request on a new handle, or attach to it."""
        if self._last_handle == HANDLE_LAST:
            self.end(broken("the session's handles are used up"))
            return
        self._last_handle += 1
        self._calls[self._last_handle] = call
        self._handles[call] = self._last_handle
        self._outbox.begin(self._last_handle, call)
        if len(self._handles) > UNACCEPTED_LIMIT:
            self._watch_held()

    def pause(self, call: Call, paused: bool) -> None:
        """Pause or resume a call's handle, if it has one."""
        if handle := self._handles.get(call):
            self._outbox.pause(handle, paused)

    def leave(self, call: Call) -> None:
        """Let go of a call's handle, if it has one."""
        if handle := self._handles.pop(call, None):
            del self._calls[handle]
            self._outbox.leave(handle)
            self._note_settled()

    def carries(self, call: Call) -> bool:
        """Whether the call has a handle."""
        return call in self._handles

    def bye(self) -> None:
        """Let go of all handles and ask the scheduler to end the stream, which ends in any case a moment later."""
        self._outbox.bye()
        self._loop.call_later(self._times.bye_s, self.end, broken("the session was closed"))

    def end(self, why: SessionEnd) -> None:
        """End the stream from this side."""
        if self._ending is None:
            self._ending = why
            self._rpc.cancel()

    async def _write(self) -> None:
        try:
            while True:
                message = await self._outbox.take()
                await self._rpc.write(message)
                if message.bye:
                    await self._rpc.done_writing()
                    return
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the stream is over, which the reader finds out too
        except Exception as error:
            self._loop.call_exception_handler({"message": "a session could not be written", "exception": error})
            self.end(broken("the session could not be written"))

    async def _read(self) -> SessionEnd:
        try:
            async with asyncio.timeout(self._times.open_s):
                first = await self._rpc.read()
            self._take_first(first)
            while (message := await self._rpc.read()) is not grpc.aio.EOF:
                self._take(cast(inference_pb2.SessionResponse, message))
        except grpc.aio.AioRpcError as error:
            return self._ending or end_from_rpc(error, opened=self.opened)
        except TimeoutError:
            return broken(f"the scheduler did not open a session within {self._times.open_s:g} s")
        except NotLeaderError as error:
            return SessionEnd(kind=EndKind.UNSETTLED, error=error)
        except ProtocolError as error:
            return SessionEnd(kind=EndKind.FINAL, error=error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._ending or broken("the connection was closed")
        return self._ending or broken("the scheduler ended the session")

    def _take_first(self, message: object) -> None:
        if message is grpc.aio.EOF:
            raise ProtocolError("the scheduler ended the session without Opened")
        first = cast(inference_pb2.SessionResponse, message)
        if not first.HasField("opened"):
            raise ProtocolError("the scheduler began a session without Opened")
        self._refuse_older(first.opened)
        self.opened = True
        self._route.answered()
        silences = seconds(first.opened.silence), seconds(first.opened.leader_lease)
        self._silence_s = min((self._times.silence_s, *(each for each in silences if each)))
        self._ping_every_s = self._silence_s / PINGS_IN_SILENCE
        self._pinging = self._loop.call_later(self._ping_every_s, self._ping)
        self._take(first)

    def _refuse_older(self, opened: inference_pb2.Opened) -> None:
        """Note the highest epoch of a leader.  Raises NotLeaderError for an older one, which leads no more."""
        if not opened.HasField("leader_lease"):
            return
        if opened.epoch < self._route.epoch:
            raise NotLeaderError(f"the scheduler's epoch {opened.epoch} is over: another one led since")
        self._route.epoch = opened.epoch

    def _take(self, message: inference_pb2.SessionResponse) -> None:
        self._unanswered = 0
        if message.HasField("frame"):
            self._take_frame(message.frame)

    def _take_frame(self, frame: inference_pb2.SessionFrame) -> None:
        if frame.number != self.frames + 1:
            raise ProtocolError(f"frame {frame.number} came after frame {self.frames}")
        self.frames = frame.number
        for accepted in frame.accepted:
            self._accept(accepted)
        for scheduled in frame.scheduled:
            if call := self._calls.get(scheduled.handle):
                call.take_scheduled(scheduled.scheduled)
        deliver_output(frame, self._calls)
        for finished in frame.finished:
            if call := self._end_handle(finished.handle):
                self._owner.finished(call, finished.finished)
        for failed in frame.failed:
            if call := self._end_handle(failed.handle):
                self._owner.failed(call, error_from_status(failed.status, request_id=call.request_id))
        self._acknowledge()

    def _accept(self, accepted: inference_pb2.HandleAccepted) -> None:
        self._outbox.accepted(accepted.handle)
        self._note_settled()
        if call := self._calls.get(accepted.handle):
            call.take_accepted(accepted.accepted)
            call.take_positions(accepted.positions)

    def _end_handle(self, handle: int) -> Call | None:
        """Forget a handle that the scheduler ended; return its call, None if it was left before."""
        call = self._calls.pop(handle, None)
        if call is not None:
            del self._handles[call]
        self._outbox.ended(handle)
        self._note_settled()
        return call

    def _note_settled(self) -> None:
        self._settled += 1
        self.stuck = False

    def _watch_held(self) -> None:
        if self._holding is None:
            self._holding = self._loop.call_later(self._times.held_s, self._look_at_held, self._settled)

    def _look_at_held(self, settled: int) -> None:
        """Give up requests that are held back, if no other was accepted since there were ``settled`` of them."""
        self._holding = None
        held = self._outbox.held_back
        if held and settled != self._settled:
            self._watch_held()
            return
        for handle in held:
            call = self._calls.pop(handle)
            del self._handles[call]
            self._outbox.leave(handle)
            self._owner.held_back(call)
        self.stuck = bool(held)

    def _acknowledge(self) -> None:
        due = self.frames - self._outbox.acknowledged >= ACKNOWLEDGE_EVERY
        self._outbox.acknowledge(self.frames, now=due)
        if self._acknowledging is None:
            self._acknowledging = self._loop.call_later(self._times.acknowledge_s, self._acknowledge_rest)

    def _acknowledge_rest(self) -> None:
        self._acknowledging = None
        if self.frames > self._outbox.acknowledged:
            self._outbox.acknowledge(self.frames, now=True)

    def _ping(self) -> None:
        if self._unanswered >= PINGS_IN_SILENCE:
            self.end(broken(f"the scheduler sent nothing for {self._silence_s:g} s"))
            return
        self._unanswered += 1
        self._pings += 1
        self._outbox.ping(self._pings)
        self._pinging = self._loop.call_later(self._ping_every_s, self._ping)
