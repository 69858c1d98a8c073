"""Runs one line of a batch through the intake, as its tenant's requests, until it has a result."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from sage_common.clock import Clock
from scheduler_svc.control.batches.line_codec import BatchLine, LineCodec
from scheduler_svc.control.batches.retries import tries_again, wait_s
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.journal.batches import LineResult, StoredBatch
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.request_group import MemberFailed, RequestGroup
from scheduler_svc.domain.errors import DeadlineExceeded, SchedulerError

log = logging.getLogger(__name__)

Pause = Callable[[float], Awaitable[None]]
"""Waits so many seconds before a line is tried again."""

Keep = Callable[[LineResult], Awaitable[None]]
"""Returns once a result is on the disk."""


class LineRunner:
    """Submits lines, and tries again what failed for want of something that comes back."""

    def __init__(
        self,
        intake: Intake,
        codec: LineCodec,
        clock: Clock,
        wall_clock: Callable[[], float],
        settings: BatchSettings,
    ) -> None:
        """``wall_clock``: seconds since 1970."""
        self.codec = codec
        self._intake = intake
        self._clock = clock
        self._wall_clock = wall_clock
        self._models_known_at = clock.now() + settings.unknown_model_s
        self.retries = 0  # since the start

    async def run(self, line: BatchLine, batch: StoredBatch, until: float, keep: Keep, pause: Pause) -> None:
        """Run a line and keep its result.  Whoever cancels this cancels the line's requests.

        ``until``: when the batch expires, in seconds on the control clock; the caller cancels this then.
        """
        tries = 0
        while True:
            tries += 1
            try:
                await self._try(line, batch, until, keep)
                return
            except SchedulerError as error:
                if not tries_again(error, tries, models_may_come=self._clock.now() < self._models_known_at):
                    await keep(self._failed(line, batch, error))
                    return
                self.retries += 1
                await pause(wait_s(error, tries))
            except Exception as error:
                log.exception("line %d of batch %s failed for a defect of the scheduler", line.index, batch.key)
                await keep(self._failed(line, batch, error))
                return

    async def _try(self, line: BatchLine, batch: StoredBatch, until: float, keep: Keep) -> None:
        """Submit a line's requests, wait for all of them and keep the result.

        Executors hold their ends until the result is kept, so that a scheduler which comes after this one finds them.
        Raises SchedulerError if a request is refused or does not finish.
        """
        deadline_s = until - self._clock.now()
        if deadline_s <= 0:
            raise DeadlineExceeded("before the line ran")
        group = RequestGroup(self._intake, await self.codec.requests(line, batch, deadline_s))
        try:
            found = await group.run()
        except MemberFailed as failed:
            raise failed.error from failed
        content = self.codec.succeeded(line, batch, found, self._wall_clock())
        await keep(LineResult(index=line.index, succeeded=True, content=content))
        group.settle(found)

    def _failed(self, line: BatchLine, batch: StoredBatch, error: Exception) -> LineResult:
        """Return a line's result that tells of an error; of one that cannot be told, that there was a defect."""
        try:
            content = self.codec.failed(line, batch, error)
        except Exception as defect:
            log.exception("the error of line %d of batch %s cannot be told", line.index, batch.key)
            content = self.codec.failed(line, batch, RuntimeError(type(defect).__name__))
        return LineResult(index=line.index, succeeded=False, content=content)
