"""Runs an attempt whose outputs the engine gives in a stream of its own, in one task.

For legs that ``Engine.submit`` refuses: prefill and decode legs with KV transfer, log probabilities, constraints; and
for engines that cannot give outputs by steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from executor_svc.runtime.attempts.attempt import DEADLINE_PASSED, Attempt
from executor_svc.runtime.attempts.ending import Ending
from executor_svc.runtime.attempts.leg import Leg, engine_request_id, resumed_leg
from executor_svc.runtime.attempts.replay import Replay, ReplayDiverged
from executor_svc.runtime.engine_port import EngineError, EngineOutput, InvalidRequestError
from executor_svc.runtime.messages.outputs import EndCause

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 10.0  # for the engine to stop a prefill leg; then the leg is aborted, even if its KV stays behind


class StreamedRun:
    """Reads the outputs of one attempt from ``Engine.generate``."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        deadline: float | None,
        on_submitted: Callable[[], None],
        on_over: Callable[[BaseException | None], None],
    ) -> None:
        """Make a run; ``start`` starts it.

        ``deadline``: on the event loop's clock.  ``on_submitted`` is called once: when the engine has the request, or
        when it is certain that it never will.  ``on_over`` is called once, when the run is over, with what it failed
        with, if it was a defect.
        """
        self._attempt = attempt
        self._services = attempt.services
        self._deadline = deadline
        self._on_submitted = on_submitted
        self._on_over = on_over
        self._task: asyncio.Task[None] | None = None
        self._stop: asyncio.Task[None] | None = None

    def start(self, leg: Leg) -> None:
        """Run ``leg`` in a task."""
        name = f"attempt-{self._attempt.assign.attempt}"
        self._task = asyncio.get_running_loop().create_task(self._run(leg), name=name)
        self._task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._on_over(None if task.cancelled() else task.exception())

    def interrupt(self, cause: EndCause, message: str) -> None:
        """End the attempt early.  Without effect if the attempt is ending already."""
        task, attempt = self._task, self._attempt
        if attempt.ending is not None or attempt.stopping is not None or task is None or task.done():
            return
        ending = Ending(cause=cause, message=message)
        if attempt.prefills and attempt.engine_has_it:
            # The leg may be over already, with its KV kept: then it must end as FINISHED, with its transfer parameters.
            attempt.stopping = ending
            self._stop = asyncio.get_running_loop().create_task(self._stop_leg(task, ending), name="stop-prefill")
        else:
            self._abort(task, ending)

    def _abort(self, task: asyncio.Task[None], ending: Ending) -> None:
        self._attempt.end(ending)
        task.cancel()

    async def _stop_leg(self, task: asyncio.Task[None], ending: Ending) -> None:
        """Ask the engine to stop a prefill leg; ``_consume`` reads how the leg ended from the last output."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._services.engine.stop(engine_request_id(self._attempt.assign))
                await asyncio.wait([task])
        except TimeoutError:
            log.warning("the engine did not stop a prefill in %g s", STOP_TIMEOUT_S)
        except EngineError as error:
            log.warning("the engine did not stop a prefill: %s", error)
        finally:
            if not task.done():
                self._abort(task, ending)

    # --- in the task --------------------------------------------------------------------------------------------------

    async def _run(self, leg: Leg) -> None:
        asyncio.get_running_loop().call_soon(self._on_submitted)
        try:
            await self._generate(leg)
        except ReplayDiverged as divergence:
            if self._attempt.diverged(divergence):
                await self._generate(resumed_leg(self._attempt.assign, self._services.engine.facts))

    async def _generate(self, leg: Leg) -> None:
        """Run one leg on the engine and note how it ended.  Raises ReplayDiverged."""
        attempt = self._attempt
        outputs = self._services.engine.generate(leg.request)
        attempt.engine_has_it = True
        try:
            with self._stopped_at(self._deadline if attempt.prefills else None):
                async with asyncio.timeout_at(None if attempt.prefills else self._deadline):
                    await self._consume(outputs, leg)
        except TimeoutError:
            attempt.end(Ending(cause=EndCause.DEADLINE, message=DEADLINE_PASSED))
        except (InvalidRequestError, EngineError) as error:
            # Before the first token the KV connector may not know the request, and then does not release its KV.
            attempt.engine_has_it = attempt.has_token
            attempt.fail(error)
        finally:
            await self._services.wait_for_release(outputs.aclose())

    @contextmanager
    def _stopped_at(self, deadline: float | None) -> Iterator[None]:
        """Stop a prefill leg at ``deadline`` through the engine.

        Cancelling its task could lose KV that is kept already.
        """
        if deadline is None:
            yield
            return
        timer = asyncio.get_running_loop().call_at(deadline, self.interrupt, EndCause.DEADLINE, DEADLINE_PASSED)
        try:
            yield
        finally:
            timer.cancel()

    async def _consume(self, outputs: AsyncGenerator[EngineOutput, None], leg: Leg) -> None:
        replay = Replay(leg.replayed) if leg.replayed else None
        async for output in outputs:
            if replay is not None:
                replay.strip(output)
                if replay.done:
                    replay = None
            if self._attempt.take(output):
                return
        self._attempt.end(Ending(cause=EndCause.FAILED, message="the engine ended the request without a reason"))
