"""Writes one session's messages: which handles have something new, and when the next frame may go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from sage.controlplane.v1 import inference_pb2
from sage_common.clock import Clock, Timer
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.transport.client_sessions.frame_draft import FrameDraft
from scheduler_svc.transport.client_sessions.handle import Handle
from scheduler_svc.transport.client_sessions.limits import PACE_S
from scheduler_svc.transport.client_sessions.observer import SessionObserver
from scheduler_svc.transport.client_sessions.window import Window

Write = Callable[[Any], Awaitable[None]]

FORGOTTEN_LIMIT = 1_024
"""Handles that are over and may wait all the same: fewer are not worth looking for."""


class FrameWriter:
    """Turns what is new of a session's handles into frames, one at a time, as the window and the pace allow."""

    def __init__(
        self,
        clock: Clock,
        new_draft: Callable[[], FrameDraft],
        on_over: Callable[[Handle], None],
        on_error: Callable[[Handle, Exception], None],
        observer: SessionObserver,
        ends: KeptEnds,
    ) -> None:
        """``on_over``: called with each handle whose end a frame took; ``on_error``, if taking from one raised."""
        self._clock = clock
        self._new_draft = new_draft
        self._on_over = on_over
        self._on_error = on_error
        self._observer = observer
        self._ends = ends
        self._unconfirmed: deque[tuple[int, list[LiveRequest]]] = deque()  # ends by frame; the window bounds the frames
        self.window = Window(clock)
        self._waiting: deque[Handle] = deque()  # those with something new, each once
        self._forgotten = 0  # how many of them are over
        self._awake = asyncio.Event()
        self._due = False  # the next frame may go at once
        self._timer: Timer | None = None  # until the pace allows the next frame
        self._latest_at = -PACE_S + clock.now()  # of the latest frame
        self._stalled = False
        self._pong = 0
        self._closing: Exception | None = None

    def note(self, handle: Handle, urgent: bool) -> None:
        """Have the next frame take what is new of a handle; ``urgent``: a caller waits for it.  The hot path."""
        if not handle.queued:
            handle.queued = True
            self._waiting.append(handle)
        if self._due:
            return
        if urgent and self.window.mostly_open:
            self._go()
        elif self._timer is None:
            self._pace()

    def forget(self, handle: Handle) -> None:
        """Note that a handle is over.

        While the window is closed nothing else takes out of the queue what a client submits and leaves.
        """
        if not handle.queued:
            return
        self._forgotten += 1
        if self._forgotten >= FORGOTTEN_LIMIT and 2 * self._forgotten > len(self._waiting):
            self._waiting = deque(each for each in self._waiting if not each.over)
            self._forgotten = 0

    def acknowledge(self, number: int) -> None:
        """Note that the client handled a frame and all before it.  Raises InvalidRequest for one that was not sent."""
        self.window.acknowledge(number)
        while self._unconfirmed and self._unconfirmed[0][0] <= number:
            for live in self._unconfirmed.popleft()[1]:
                self._ends.confirmed(live)
        if self._waiting:
            self._pace()

    def pong(self, number: int) -> None:
        """Answer a ping; pings that come faster than the stream takes answers are answered by the latest."""
        self._pong = number
        self._awake.set()

    def close(self, error: Exception) -> None:
        """Have ``run`` raise ``error`` once a frame took all that waits."""
        self._closing = error
        self._go()

    def stop(self, *, left: bool) -> None:
        """Forget what waits: nothing is written any more.

        ``left``: the client said Bye, so that it needs no end that it has not acknowledged.
        """
        settle = self._ends.confirmed if left else self._ends.lost
        while self._unconfirmed:
            for live in self._unconfirmed.popleft()[1]:
                settle(live)
        self._waiting.clear()
        self._forgotten = 0
        self._cancel_timer()

    async def run(self, write: Write) -> None:
        """Write until cancelled.  Raises the error that ``close`` got."""
        while True:
            await self._awake.wait()
            self._awake.clear()
            message = self._next()
            if message is not None:
                await write(message)
            if self._closing is not None:
                if not self._waiting:
                    raise self._closing
                self._pace()

    # --- inside -----------------------------------------------------------------------------------

    def _go(self) -> None:
        """Have the next frame go."""
        self._due = True
        self._cancel_timer()
        self._awake.set()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _pace(self) -> None:
        """Have the next frame go as soon as the window and the pace allow it."""
        if self._due or self._timer is not None:
            return
        if self.window.closed:
            if not self._stalled:
                self._stalled = True
                self._observer.stalled()
            return
        at = self._latest_at + PACE_S
        if at <= self._clock.now():
            self._go()
        else:
            self._timer = self._clock.call_at(at, self._go)

    def _next(self) -> inference_pb2.SessionResponse | None:
        """Return the next message; None if nothing may go."""
        message = inference_pb2.SessionResponse()
        pong, self._pong = self._pong, 0
        if pong:
            message.pong = pong
        framed = self._due and self._frame(message)
        return message if pong or framed else None

    def _frame(self, message: inference_pb2.SessionResponse) -> bool:
        """Fill the message's frame; return False if nothing waits, or if the window is closed."""
        self._due = False
        if self.window.closed:
            self._pace()
            return False
        draft = self._new_draft()
        self._fill(draft)
        ends = [
            live for each in draft.over if each.failure is None for live in each.live.members if self._ends.taken(live)
        ]
        for handle in draft.over:
            self._on_over(handle)
        if draft.empty:
            return False
        message.frame.number = self.window.send()
        if ends:
            self._unconfirmed.append((message.frame.number, ends))
        draft.write(message.frame)
        self._stalled = False
        self._latest_at = self._clock.now()
        self._observer.sent(draft.tokens, message.ByteSize())
        if self._waiting:
            self._pace()
        return True

    def _fill(self, draft: FrameDraft) -> None:
        """Have the draft take what waits, each handle once."""
        for _ in range(len(self._waiting)):
            if draft.full:
                return
            handle = self._waiting.popleft()
            handle.queued = False
            if handle.over:
                self._forgotten -= 1
                continue
            try:
                more = draft.take(handle)
            except Exception as error:  # the others must not suffer for it
                self._on_error(handle.lead, error)
                continue
            if more:
                handle.queued = True
                self._waiting.append(handle)
