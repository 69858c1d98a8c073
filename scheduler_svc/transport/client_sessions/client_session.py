"""One client's session: its handles, its messages, and how it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sized
from typing import TypeVar

from sage.controlplane.v1 import inference_pb2
from sage_common.clock import Clock, Timer
from scheduler_svc.access.caller import renew_caller
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.outcome import DELIVERY_FAILED
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest, LimitReached
from scheduler_svc.transport.client_sessions.arrivals import Arrivals
from scheduler_svc.transport.client_sessions.frame_draft import FrameDraft
from scheduler_svc.transport.client_sessions.frame_writer import FrameWriter, Write
from scheduler_svc.transport.client_sessions.handle import Handle
from scheduler_svc.transport.client_sessions.handle_numbers import HandleNumbers
from scheduler_svc.transport.client_sessions.limits import (
    ACKNOWLEDGE_LIMIT_S,
    ARRIVING_LIMIT,
    BEGUN_PER_TURN,
    ENTRIES_LIMIT,
    HANDLES_LIMIT,
    IDENTITY_AGE_S,
    PAUSE_LIMIT_S,
    REFUSALS_LIMIT,
    SILENCE_S,
)
from scheduler_svc.transport.client_sessions.observer import SessionObserver
from scheduler_svc.transport.held_message import HeldMessage
from scheduler_svc.transport.refusals import Refusals

log = logging.getLogger(__name__)

W = TypeVar("W", inference_pb2.Submit, inference_pb2.AttachHandle)

Messages = AsyncIterator[inference_pb2.SessionRequest]

REPEATED = ("submit", "attach", "pause", "resume", "leave")


class ClientSession:
    """Runs from its first message until the client leaves, breaks a rule or is gone."""

    def __init__(
        self,
        intake: Intake,
        clock: Clock,
        new_draft: Callable[[], FrameDraft],
        refusals: Refusals,
        observer: SessionObserver,
    ) -> None:
        self._intake = intake
        self._clock = clock
        self._refusals = refusals
        self._numbers = HandleNumbers()
        self._handles: dict[int, Handle] = {}  # until a frame took their end, or the client let them go
        self._arrivals = Arrivals(intake)
        self._arriving: set[int] = set()  # handles whose submission is not accepted yet
        self._writer = FrameWriter(clock, new_draft, self._forget, self._fail_delivery, observer, intake.ends)
        self._heard_at = self._known_at = clock.now()  # of the latest message; who the client was last found to be
        self._look_timer: Timer | None = None
        self._stuck: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._bye = False

    def __len__(self) -> int:
        return len(self._handles)

    async def run(self, first: HeldMessage, messages: Messages, write: Write) -> None:
        """Take the client's messages, and write frames, until one of both ends.

        ``first``: the one with Open; no message is kept once it was taken.

        Raises InvalidRequest for a message that breaks a rule, LimitReached for a client that is silent or
        acknowledges nothing, and the error that ``close`` got.
        """
        loop = asyncio.get_running_loop()
        writing = loop.create_task(self._writer.run(write), name="session frames")
        reading = loop.create_task(self._read(first, messages), name="session messages")
        self._look()
        try:
            done, _ = await asyncio.wait({reading, writing, self._stuck}, return_when=asyncio.FIRST_COMPLETED)
            for each in (self._stuck, reading, writing):
                if each in done:
                    each.result()
        finally:
            self._let_go()
            reading.cancel()
            writing.cancel()
            self._stuck.cancel()
            await asyncio.gather(reading, writing, self._stuck, return_exceptions=True)

    def close(self, error: Exception) -> None:
        """End the stream with ``error`` once what is new was written."""
        self._writer.close(error)

    # --- messages ---------------------------------------------------------------------------------

    async def _read(self, first: HeldMessage, messages: Messages) -> None:
        """Take messages until the client is done.  Raises InvalidRequest, LimitReached, Denied."""
        await self._take(first.take())
        while not self._bye and (message := await anext(messages, None)) is not None:
            if message.HasField("open"):
                raise _broken("open", "is in a later message than the first")
            taking = self._take(message)
            del message  # it may hold a megabyte of prompts
            await taking

    async def _take(self, message: inference_pb2.SessionRequest) -> None:
        """Take a message's fields in the order of their numbers, but ``bye``, which ``run`` does when it ends.

        Others get their turn after every few requests that begin, and those are sent to their executors.
        """
        self._bye = message.bye  # first: a client may cancel the call right behind it
        self._heard_at = now = self._clock.now()
        if now - self._known_at >= IDENTITY_AGE_S:
            renew_caller()
            self._known_at = now
        for name in REPEATED:
            _check_count(getattr(message, name), name)
        for index, submit in enumerate(message.submit):
            if index and not index % BEGUN_PER_TURN:
                await asyncio.sleep(0)  # those before it are accepted
                await self._intake.placed()
            self._submit(f"submit[{index}].handle", submit)
        for index, attach in enumerate(message.attach):
            if index and not index % BEGUN_PER_TURN:
                await asyncio.sleep(0)
            self._attach(f"attach[{index}].handle", attach)
        for number in message.pause:
            if (handle := self._handles.get(number)) is not None:
                handle.pause()
        for number in message.resume:
            if (handle := self._handles.get(number)) is not None:
                handle.resume()
        for number in message.leave:
            if (handle := self._handles.get(number)) is not None:
                self._drop(handle, self._intake.readers.leave_soon)
        if message.acknowledged:
            self._writer.acknowledge(message.acknowledged)
        if message.ping:
            self._writer.pong(message.ping)

    def _submit(self, field: str, wire: inference_pb2.Submit) -> None:
        handle = self._new_handle(field, wire.handle)
        if handle is not None:
            self._begin(handle, self._arrivals.submit, wire)

    def _begin(self, handle: Handle, arrive: Callable[[Handle, W], Awaitable[None]], wire: W) -> None:
        """Have a handle begin once ``arrive`` is done; refuse it if too many have not begun yet."""
        if len(self._arriving) >= ARRIVING_LIMIT:
            what = "handles of a session between Submit and HandleAccepted"
            self._refuse(handle, LimitReached(what, ARRIVING_LIMIT))
            return
        self._arriving.add(handle.number)
        submitting = asyncio.get_running_loop().create_task(
            self._arrive(handle, arrive, wire), name="session submission"
        )
        submitting.add_done_callback(lambda _: self._arriving.discard(handle.number))
        handle.submitting = submitting

    async def _arrive(self, handle: Handle, arrive: Callable[[Handle, W], Awaitable[None]], wire: W) -> None:
        arriving = arrive(handle, wire)
        del wire  # it keeps its whole message in memory
        try:
            await arriving
        except Exception as error:
            self._refuse(handle, error)

    def _attach(self, field: str, wire: inference_pb2.AttachHandle) -> None:
        handle = self._new_handle(field, wire.handle)
        if handle is None:
            return
        if self._arrivals.in_journal(wire):
            self._begin(handle, self._arrivals.recall, wire)
            return
        try:
            self._arrivals.attach(handle, wire)
        except Exception as error:
            self._refuse(handle, error)

    # --- handles ----------------------------------------------------------------------------------

    def _new_handle(self, field: str, number: int) -> Handle | None:
        """Return a new handle; None if it is refused.  Raises InvalidRequest for its number, LimitReached."""
        why_not = self._numbers.why_not(number)
        if why_not:
            raise _broken(field, why_not)
        self._numbers.use(number)
        if len(self._handles) >= HANDLES_LIMIT + REFUSALS_LIMIT:
            raise LimitReached("refused handles of a session", REFUSALS_LIMIT)
        handle = Handle(number, self._writer.note, self._expire_later)
        full = len(self._handles) >= HANDLES_LIMIT
        self._handles[number] = handle
        if full:
            self._refuse(handle, LimitReached("handles of a session", HANDLES_LIMIT))
            return None
        return handle

    def _refuse(self, handle: Handle, error: Exception) -> None:
        """End a handle that is not accepted; a request that it reads already is not let go for that."""
        about = None
        if not handle.released:
            about = handle.live.about
            self._intake.readers.lose(handle)
            handle.release()
        handle.fail(self._refusals.status(error, about))

    def _fail_delivery(self, handle: Handle, error: Exception) -> None:
        """End a handle of which a frame could not be filled, for a defect of the scheduler."""
        about = handle.live.about
        self._intake.readers.leave(handle, DELIVERY_FAILED)
        handle.release()
        handle.fail(self._refusals.status(error, about))

    def _forget(self, handle: Handle) -> None:
        """Note that a frame took a handle's end."""
        self._drop(handle, self._intake.readers.leave)

    def _drop(self, handle: Handle, part: Callable[[Handle], None]) -> None:
        """End a handle; ``part`` with its request, if it reads one."""
        self._handles.pop(handle.number, None)
        self._arriving.discard(handle.number)
        handle.end()
        for each in handle.family:
            self._writer.forget(each)
        if not handle.released:
            part(handle)
            handle.release()

    def _expire_later(self, handle: Handle) -> None:
        """End a handle whose request has ended, if it stays paused."""
        if handle.expiry is None:
            handle.expiry = self._clock.call_at(self._clock.now() + PAUSE_LIMIT_S, lambda: self._expire(handle))

    def _expire(self, handle: Handle) -> None:
        what = "seconds that a handle stays paused after its request ended"
        text = f"the handle stayed paused for {PAUSE_LIMIT_S:g} s after its request ended"
        handle.fail(self._refusals.status(LimitReached(what, PAUSE_LIMIT_S, text)))

    # --- the end ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """End a stream that is silent, or whose client acknowledges nothing; else look again when that may be so."""
        now = self._clock.now()
        silent_at = self._heard_at + SILENCE_S
        since = self._writer.window.waiting_since
        unread_at = since + ACKNOWLEDGE_LIMIT_S if since is not None else silent_at
        if silent_at <= now:
            self._give_up("seconds without a message", SILENCE_S, f"the client wrote nothing for {SILENCE_S:g} s")
        elif unread_at <= now:
            text = f"the client acknowledged no frame for {ACKNOWLEDGE_LIMIT_S:g} s"
            self._give_up("seconds without an acknowledgement", ACKNOWLEDGE_LIMIT_S, text)
        else:
            self._look_timer = self._clock.call_at(min(silent_at, unread_at), self._look)

    def _give_up(self, what: str, limit: float, text: str) -> None:
        self._let_go()  # a stream whose client does not read ends only when it reads on or leaves
        if not self._stuck.done():
            self._stuck.set_exception(LimitReached(what, limit, text))

    def _let_go(self) -> None:
        """End all handles: their requests are left after Bye, and wait for a reader otherwise.  Idempotent."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._writer.stop(left=self._bye)
        part = self._intake.readers.leave_soon if self._bye else self._intake.readers.lose
        if self._handles and not self._bye:
            log.info("session from %s broke with %d requests", self._refusals.peer, len(self._handles))
        for handle in list(self._handles.values()):
            self._drop(handle, part)


def _broken(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field=field, description=description)])


def _check_count(entries: Sized, field: str) -> None:
    if len(entries) > ENTRIES_LIMIT:
        raise _broken(field, f"has {len(entries)} entries; the limit is {ENTRIES_LIMIT}")
