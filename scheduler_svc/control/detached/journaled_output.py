"""One choice of a detached request, whose output and end are written down as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sage_common.clock import Clock, Timer
from scheduler_svc.control.detached.settings import DetachedSettings
from scheduler_svc.control.journal.detached import Checkpoint, DetachedEnd, OutputFacts
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.request import RequestKey

PIECE_TOKENS = 4_096
"""Most output tokens of one checkpoint."""

READ_PACE_S = 0.05
"""Seconds between two checkpoints of a request that somebody reads: its reader gets tokens at that pace."""


class JournaledOutput:
    """Notes when what is new of a choice is to be written down, and publishes what was.

    Implements ``Reader``: the request wakes it, as it wakes its clients.  A choice that has ended waits for the others
    with what is new of it, so that all ends are in one write: in the journal a request has ended whole or not.
    """

    __slots__ = (
        "_clock",
        "_due",
        "_latest_at",
        "_published",
        "_settings",
        "_timer",
        "_timer_at",
        "choices",
        "ended",
        "keep_s",
        "live",
    )

    def __init__(
        self,
        live: LiveRequest,
        keep_s: float,
        clock: Clock,
        settings: DetachedSettings,
        due: Callable[[JournaledOutput], None],
    ) -> None:
        """Begin to write down what becomes of a request, or of one of its choices.

        ``keep_s``: how long the result is kept after the end; ``due``: told when something is to be written.
        """
        self.live = live
        self.choices: Sequence[JournaledOutput] = (self,)  # of the request, by index, this one included
        self.keep_s = keep_s
        self._clock = clock
        self._settings = settings
        self._due = due
        self._latest_at = clock.now() - settings.checkpoint_s  # of the latest checkpoint
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self.ended = asyncio.Event()  # set when its end is written down
        self._published = live.keep_in_journal()
        live.readers[self] = None

    @property
    def key(self) -> RequestKey:
        """The request's tenant and id, and the index of the choice."""
        return self.live.key

    @property
    def lead(self) -> JournaledOutput:
        """Choice 0 of the request."""
        return self.choices[0]

    @property
    def together(self) -> Sequence[JournaledOutput]:
        """What has to be in the same write: once the request has ended, all its choices."""
        return self.choices if self.live.all_ended else (self,)

    @property
    def position(self) -> int:
        """How many output tokens are written down."""
        return len(self._published)

    def publish(self, tokens: int) -> None:
        """Note that the journal has the first ``tokens`` tokens already."""
        self._published.publish(tokens)

    def wake(self) -> None:
        """Note that there is something new: it is due at once, at the reader's pace, or after a while."""
        live, settings, new = self.live, self._settings, len(self.live.output) - self.position
        if live.outcome is not None and not live.all_ended:
            self._cancel()
        elif live.outcome is not None or new >= settings.checkpoint_tokens:
            self._now()
        elif new:
            self._by(self._latest_at + (READ_PACE_S if len(live.readers) > 1 else settings.checkpoint_s))

    def stop(self) -> None:
        """Write nothing more."""
        self.live.readers.pop(self, None)
        self._cancel()

    def checkpoint(self, epoch: int, end: Callable[[JournaledOutput], DetachedEnd], wall_s: float) -> Checkpoint:
        """Return what is new.  ``epoch``: this scheduler's; ``end``: makes the request's end, if it has ended.

        ``wall_s``: seconds from the control clock's zero to 1970's, to be added to the control clock's times.
        """
        output, start = self.live.output, self.position
        until = min(len(output), start + PIECE_TOKENS)
        ended = self.live.all_ended and all(each._fits for each in self.choices)
        if self.live.outcome is not None and self._fits and not ended:
            until = start
        return Checkpoint(
            key=self.key,
            facts=output_facts(self.live, until, epoch, wall_s),
            piece=output.piece(start, until) if until > start else None,
            end=end(self) if ended else None,
        )

    def saved(self, checkpoint: Checkpoint) -> None:
        """Publish what was written down, and wake the readers."""
        self._latest_at = self._clock.now()
        piece, ended = checkpoint.piece, checkpoint.end is not None
        self._published.publish(self.position + (len(piece.token_ids) if piece is not None else 0), complete=ended)
        if ended:
            self.live.end_is_published = True
            self.ended.set()
            self.stop()
        self.live.changed()

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _fits(self) -> bool:
        """Whether what is new of the choice fits into one checkpoint."""
        return len(self.live.output) - self.position <= PIECE_TOKENS

    def _now(self) -> None:
        self._cancel()
        self._due(self)

    def _by(self, at: float) -> None:
        """Have something be due at ``at``, unless it is earlier."""
        if self._timer is not None and self._timer_at <= at:
            return
        self._cancel()
        self._timer_at, self._timer = at, self._clock.call_at(at, self._now)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def output_facts(live: LiveRequest, until: int, epoch: int, wall_s: float) -> OutputFacts:
    """Return what is known of the first ``until`` output tokens; ``epoch`` and ``wall_s`` as for ``checkpoint``."""
    name, first = (0, 0), live.first_token_at
    if until:
        name = live.name_of(live.output.read(until - 1, 1).attempt_number, epoch)
    return OutputFacts(
        epoch=name[0],
        attempt_number=name[1],
        attempts=live.attempts,
        cost=live.cost,
        first_token_at=None if first is None else first + wall_s,
        identity=live.identity,
    )
