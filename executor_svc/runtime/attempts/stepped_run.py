"""Runs an attempt whose outputs come by steps: no task, queue or generator while the engine generates."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from executor_svc.runtime.attempts.attempt import DEADLINE_PASSED, Attempt
from executor_svc.runtime.attempts.ending import Ending
from executor_svc.runtime.attempts.leg import Leg, resumed_leg
from executor_svc.runtime.attempts.replay import Replay, ReplayDiverged
from executor_svc.runtime.attempts.streamed_run import StreamedRun
from executor_svc.runtime.engine_port import EngineError, EngineOutput, InvalidRequestError, StepOutput
from executor_svc.runtime.log_context import logged_about
from executor_svc.runtime.messages.outputs import EndCause

log = logging.getLogger(__name__)


class SteppedRun:
    """Takes the outputs of one attempt step by step.  Implements ``runtime.engine_port.StepReader``.

    A task is started only to release a request early: after a cancel, a deadline, a stop string or a replay that
    diverged.
    """

    __slots__ = (
        "_attempt",
        "_deadline",
        "_on_over",
        "_over",
        "_releasing",
        "_replay",
        "_request_id",
        "_rest",
        "_timer",
    )

    def __init__(
        self, attempt: Attempt, *, deadline: float | None, on_over: Callable[[BaseException | None], None]
    ) -> None:
        """Make a run; ``start`` starts it.

        ``deadline``: on the event loop's clock.  ``on_over`` is called once, when the run is over, with what it failed
        with, if it was a defect.
        """
        self._attempt = attempt
        self._deadline = deadline
        self._on_over = on_over
        self._over = False
        self._request_id = ""
        self._replay: Replay | None = None  # until every delivered token was compared
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: asyncio.Task[None] | None = None
        self._rest: StreamedRun | None = None  # goes on after a replay that diverged

    def start(self, leg: Leg) -> bool:
        """Submit ``leg`` to the engine.  Return False if the engine runs it by ``generate`` only.

        Raises InvalidRequestError, EngineError.
        """
        self._request_id = leg.request.engine_request_id
        self._replay = Replay(leg.replayed) if leg.replayed else None
        if not self._attempt.services.engine.submit(leg.request, self):
            return False
        if self._deadline is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(self._deadline, self.interrupt, EndCause.DEADLINE, DEADLINE_PASSED)
        return True

    def interrupt(self, cause: EndCause, message: str) -> None:
        """End the attempt early.  Without effect if the attempt is ending already."""
        if self._rest is not None:
            self._rest.interrupt(cause, message)
        elif self._attempt.ending is None and not self._over:
            self._attempt.end(Ending(cause=cause, message=message))
            self._release(self._leave())

    # --- one step's output --------------------------------------------------------------------------------------------

    def take(self, output: StepOutput) -> None:
        """Take what one step put out.  A defect ends this attempt and no other."""
        if self._releasing is not None or self._over:
            return
        try:
            if type(output) is list and self._replay is None:
                if self._attempt.take_tokens(output):
                    self._release(self._leave())
            else:
                self._take(output)
        except Exception as defect:
            self._broke(defect)

    def _take(self, output: StepOutput) -> None:
        if isinstance(output, EngineError | InvalidRequestError):
            self._attempt.fail(output)
            self._conclude()
            return
        output = output if isinstance(output, EngineOutput) else EngineOutput(token_ids=output)
        over = output.finish_reason is not None
        try:
            if self._replay is not None:
                self._replay.strip(output)
                if self._replay.done:
                    self._replay = None
            if self._attempt.take(output):
                self._conclude() if over else self._release(self._leave())
        except ReplayDiverged as divergence:
            self._diverged(divergence, over=over)

    def _diverged(self, divergence: ReplayDiverged, *, over: bool) -> None:
        with logged_about(self._attempt.output.about):
            goes_on = self._attempt.diverged(divergence)
        if goes_on:
            self._release(self._resume())
        elif over:
            self._conclude()
        else:
            self._release(self._leave())

    def _broke(self, defect: Exception) -> None:
        if self._over:
            log.error("the end of attempt %s failed", self._attempt.assign.attempt, exc_info=defect)
        else:
            self._release(self._leave(defect))

    # --- ending -------------------------------------------------------------------------------------------------------

    def _release(self, way: Coroutine[Any, Any, None]) -> None:
        """Take no more outputs, and release the request in the engine."""
        with logged_about(self._attempt.output.about):
            name = f"release-{self._attempt.assign.attempt}"
            self._releasing = asyncio.get_running_loop().create_task(way, name=name)

    async def _leave(self, defect: Exception | None = None) -> None:
        try:
            await self._abort()
        finally:
            self._conclude(defect)

    async def _resume(self) -> None:
        """Go on from the delivered tokens, in a stream, unless the attempt was interrupted meanwhile."""
        defect: Exception | None = None
        try:
            await self._abort()
            if self._attempt.ending is None:
                leg = resumed_leg(self._attempt.assign, self._attempt.services.engine.facts)
                self._stop_timer()
                self._rest = StreamedRun(
                    self._attempt, deadline=self._deadline, on_submitted=lambda: None, on_over=self._conclude
                )
                self._rest.start(leg)
        except Exception as error:
            defect = error
        finally:
            if self._rest is None:
                self._conclude(defect)

    async def _abort(self) -> None:
        services = self._attempt.services
        await services.wait_for_release(services.engine.abort(self._request_id))

    def _conclude(self, defect: BaseException | None = None) -> None:
        if not self._over:
            self._over = True
            self._stop_timer()
            self._on_over(defect)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
