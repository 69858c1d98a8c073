"""Orders what is sent on the output stream: Accepted, then tokens, then the end of each attempt.

Nothing is queued per token.  An attempt with tokens to send is listed once; when the link can take a message, the
tokens of all listed attempts become one frame.  A link that keeps up takes one frame per engine step.  While a link is
behind, tokens coalesce in their attempts (bounded by max_tokens each), and the engine never waits.

If too many notices wait, because a scheduler sends Assigns faster than it reads their rejections, the link counts as
broken: notices are never dropped in silence.
"""

from __future__ import annotations

import asyncio
from collections import deque

from executor_svc.runtime.link import LinkBroken
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ended,
    Frame,
    OutputUp,
    Piece,
    Rejected,
)
from executor_svc.runtime.outputs.attempt_output import AttemptOutput

NOTICE_LIMIT = 16_384  # most notices that may wait for the link
FRAME_WEIGHT = 200_000  # tokens and log probabilities in one frame; about 20 bytes each, well within a message
SETTLE_S = 0.002  # tokens are sent after this time if the engine reports no end of a step


class Outbox:
    """Holds what is to be sent on the output stream.  One reader awaits ``next``."""

    def __init__(self, *, notice_limit: int = NOTICE_LIMIT, settle_s: float = SETTLE_S) -> None:
        self._notices: deque[Accepted | Rejected | Ended] = deque()
        self._notice_limit = notice_limit
        self._dirty: list[AttemptOutput] = []  # outputs with pieces to send
        self._ends: deque[AttemptOutput] = deque()  # outputs whose pieces are sent and whose end is not
        self._due = False  # a step is over: the dirty outputs are to be sent
        self._open = False
        self._overrun = False
        self._wake = asyncio.Event()
        self._settle_s = settle_s
        self._timer: asyncio.TimerHandle | None = None

    # --- the session ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin a session.  Kept attempts of an earlier session are added again when the scheduler resumes them."""
        self.close()
        self._open = True

    def close(self) -> None:
        """Drop everything that waits: the link is gone, and a new session resumes from what the scheduler has."""
        self._open = False
        self._overrun = False
        self._due = False
        self._notices.clear()
        self._ends.clear()
        for output in self._dirty:
            output.queued = False
        self._dirty.clear()
        self._stop_timer()

    @property
    def backlog_tokens(self) -> int:
        """Output that waits for the link, in tokens."""
        return sum(len(piece.token_ids) for output in self._dirty for piece in output.pieces)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._notices or self._dirty or self._ends)

    # --- what comes in ----------------------------------------------------------------------------------------------

    def notice(self, message: Accepted | Rejected | Ended) -> None:
        """Send Accepted, Rejected, or the Ended of an attempt that is not held."""
        if not self._open:
            return
        if len(self._notices) >= self._notice_limit:
            self._overrun = True
        else:
            self._notices.append(message)
        self._wake.set()

    def tokens(self, output: AttemptOutput) -> None:
        """Send the pieces of ``output`` when the engine step is over."""
        if output.queued or not self._open or output.awaits_resume:
            return
        output.queued = True
        self._dirty.append(output)
        if self._timer is None and not self._due:
            self._timer = asyncio.get_running_loop().call_later(self._settle_s, self.flush)

    def ended(self, output: AttemptOutput) -> None:
        """Send the end of ``output``, after its last piece.  ``output.ended`` is set."""
        if not self._open or output.awaits_resume or output.queued:
            return  # if it is queued, its end is sent after its pieces
        self._ends.append(output)
        self._wake.set()

    def flush(self) -> None:
        """Send the pieces of all dirty outputs as one frame.  Called when an engine step is over."""
        self._stop_timer()
        if self._dirty:
            self._due = True
            self._wake.set()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- what goes out ----------------------------------------------------------------------------------------------

    async def next(self) -> OutputUp:
        """Wait for a message to send, and return it.  Raises LinkBroken when too many notices wait."""
        while (message := self._take()) is None:
            self._wake.clear()
            await self._wake.wait()
        return message

    def _take(self) -> OutputUp | None:
        if self._overrun:
            raise LinkBroken(f"the scheduler left {self._notice_limit} notices unread")
        if self._notices:
            return self._notices.popleft()
        while self._ends:
            output = self._ends.popleft()
            if not output.queued:  # else the output was rewound: its end is sent after its pieces
                return output.ended
        return self._take_frame() if self._due else None

    def _take_frame(self) -> Frame:
        pieces: list[Piece] = []
        weight = done = 0
        for output in self._dirty:
            weight += _move(output.pieces, pieces, FRAME_WEIGHT - weight)
            if output.pieces:
                break
            done += 1
            output.queued = False
            if output.ended is not None:
                self._ends.append(output)
        del self._dirty[:done]
        self._due = bool(self._dirty)
        return Frame(pieces)


def _move(waiting: list[Piece], frame: list[Piece], limit: int) -> int:
    """Move pieces into the frame while their weight fits.  Return the weight moved."""
    weight = 0
    while waiting and weight < limit:
        weight += _weight(waiting[0])
        frame.append(waiting.pop(0))
    return weight


def _weight(piece: Piece) -> int:
    if piece.logprobs is None:
        return len(piece.token_ids)
    return len(piece.token_ids) + sum(len(candidates) for candidates in piece.logprobs)
