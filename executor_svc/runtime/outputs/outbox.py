"""Makes the frames of the output stream: acceptances, tokens and ends of all attempts, in this order.

Nothing is queued per token.  While a link keeps up, a step's tokens go into the columns of the next frame as they come,
and the frame is sent when the step is over.  While a link is behind, tokens coalesce in their attempts (bounded by
max_tokens each), each such attempt is listed once, and the engine never waits.  A frame has one entry for an attempt.

If too many notices wait, because a scheduler sends Assigns faster than it reads their rejections, the link counts as
broken: notices are never dropped in silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from executor_svc.runtime.link import LinkBroken
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ended,
    Rejected,
    StepFrame,
)
from executor_svc.runtime.outputs.attempt_output import TEXT_OF_ONE_WEIGHT, AttemptOutput

NOTICE_LIMIT = 16_384  # most notices that may wait for the link
FRAME_WEIGHT = 200_000  # of the output in one frame, see ``AttemptOutput.write``; at most about 50 bytes for each
FRAME_NOTICES = 1024  # notices in one frame, and ends; each has up to a few KiB of text and KV transfer parameters
SETTLE_S = 0.002  # acceptances and tokens are sent after this time if the engine reports no end of a step


class Outbox:
    """Holds what is to be sent on the output stream.  One reader awaits ``next``."""

    def __init__(self, *, notice_limit: int = NOTICE_LIMIT, settle_s: float = SETTLE_S) -> None:
        self._notices: deque[Accepted | Rejected | Ended] = deque()
        self._notice_limit = notice_limit
        self._dirty: list[AttemptOutput] = []  # outputs with tokens to send
        self._ends: dict[AttemptId, AttemptOutput] = {}  # outputs whose tokens are sent and whose end is not
        self._due = False  # something waits that is to be sent now
        self._frame = StepFrame(epoch=0)  # columns of the step that is not over: a few tokens of each running attempt
        self._weight = 0  # of these, see FRAME_WEIGHT; what goes beyond it waits in its attempt
        self._behind = False  # a step is over whose frame the link has not taken
        self._open = False
        self._epoch = 0
        self._overrun = False
        self._wake = asyncio.Event()
        self._settle_s = settle_s
        self._timer: asyncio.TimerHandle | None = None

    # --- the session ------------------------------------------------------------------------------------------------

    def open(self, epoch: int) -> None:
        """Begin a session.  Kept attempts of an earlier session are added again when the scheduler resumes them."""
        self.close()
        self._open = True
        self._epoch = epoch
        self._begin_frame(epoch)

    def close(self) -> None:
        """Drop everything that waits: the link is gone, and a new session resumes from what the scheduler has."""
        self._open = False
        self._overrun = False
        self._due = False
        self._behind = False
        self._begin_frame(self._epoch)
        self._notices.clear()
        self._ends.clear()
        for output in self._dirty:
            output.queued = False
        self._dirty.clear()
        self._stop_timer()

    @property
    def backlog_tokens(self) -> int:
        """Output that waits for the link, in tokens."""
        return len(self._frame.token_ids) + sum(output.unsent for output in self._dirty)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._notices or self._frame.numbers or self._dirty or self._ends)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def notice(self, message: Accepted | Rejected | Ended) -> None:
        """Send Accepted, Rejected, or the Ended of an attempt that is not held.

        An acceptance may wait for the end of the engine step, as tokens do: its attempt's first tokens say the same.
        """
        if not self._open:
            return
        if len(self._notices) >= self._notice_limit:
            self._overrun = True
        else:
            self._notices.append(message)
        if isinstance(message, Accepted) and not self._overrun:
            self._settle()
        else:
            self._send_now()

    def step(self, output: AttemptOutput, token_ids: Sequence[int], text: str) -> None:
        """Take an attempt's new tokens of one engine step, without log probabilities; send them when the step is over.

        ``text``: what became certain with them.
        """
        weight = self._weight + len(token_ids) + len(text) // TEXT_OF_ONE_WEIGHT
        if output.queued or self._behind or output.in_columns != self._epoch or weight > FRAME_WEIGHT or not self._open:
            output.append(token_ids, text, None)
            if not output.queued:
                self.tokens(output)
            return
        self._weight = weight
        output.append_sent(self._frame, token_ids, text)
        if self._timer is None:
            self._settle()

    def tokens(self, output: AttemptOutput) -> None:
        """Send the output that waits in ``output`` when the engine step is over."""
        if output.queued or not self._open or output.awaits_resume:
            return
        output.queued = True
        self._dirty.append(output)
        self._settle()

    def ended(self, output: AttemptOutput) -> None:
        """Send the end of ``output``, after its last token.  ``output.ended`` is set."""
        if not self._open or output.awaits_resume or output.queued:
            return  # if it is queued, its end is sent with its tokens
        self._ends[output.attempt] = output
        self._send_now()

    def flush(self) -> None:
        """Send what waits as one frame.  Called when an engine step is over."""
        if self._frame.numbers or self._dirty or self._notices:
            self._behind = True
            self._send_now()
        else:
            self._stop_timer()

    def _settle(self) -> None:
        if self._timer is None and not self._due:
            self._timer = asyncio.get_running_loop().call_later(self._settle_s, self.flush)

    def _send_now(self) -> None:
        self._stop_timer()
        self._due = True
        self._wake.set()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what goes out ----------------------------------------------------------------------------------------------

    async def next(self) -> StepFrame:
        """Wait for a frame to send, and return it.  Raises LinkBroken when too many notices wait."""
        while True:
            while not self._due:
                self._wake.clear()
                await self._wake.wait()
            if self._overrun:
                raise LinkBroken(f"the scheduler left {self._notice_limit} notices unread")
            frame = self._take()
            if not frame.empty:
                return frame

    def _take(self) -> StepFrame:
        if len(self._notices) <= FRAME_NOTICES:
            frame, left = self._frame, FRAME_WEIGHT - self._weight
            self._begin_frame(self._epoch)
            self._take_notices(frame)
            self._take_tokens(frame, left)
            self._take_ends(frame)
            self._behind = False
        else:  # an attempt's acceptance comes before its tokens and its end
            frame = StepFrame(epoch=self._epoch)
            self._take_notices(frame)
        self._due = not self.empty
        return frame

    def _begin_frame(self, epoch: int) -> None:
        self._frame, self._weight = StepFrame(epoch=epoch), 0

    def _take_notices(self, frame: StepFrame) -> None:
        notices = self._notices
        for _ in range(min(len(notices), FRAME_NOTICES)):
            message = notices.popleft()
            match message:
                case Accepted():
                    frame.accepted.append(message)
                case Rejected():
                    frame.rejected.append(message)
                case Ended():
                    frame.ended.append(message)

    def _take_tokens(self, frame: StepFrame, left: int) -> None:
        """Write what waits, about ``left`` of weight.  An attempt in the columns already waits for the next frame."""
        written = set(frame.numbers) if self._dirty else set()
        waiting: list[AttemptOutput] = []
        for output in self._dirty:
            if output.attempt.number not in written or output.attempt.epoch != frame.epoch:
                left -= output.write(frame, left)
            if output.unsent:
                waiting.append(output)
                continue
            output.queued = False
            if output.ended is not None:
                self._ends[output.attempt] = output
        self._dirty = waiting

    def _take_ends(self, frame: StepFrame) -> None:
        ends = self._ends
        while ends and len(frame.ended) < FRAME_NOTICES:
            output = ends.pop(next(iter(ends)))
            # The end of an output that was rewound is sent after its tokens.
            if not output.queued and output.ended is not None:
                frame.ended.append(output.ended)
