"""What a scheduler does with running requests when it ends: leaves them to the next one, or lets them finish."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from scheduler_svc.control.leadership.term import Term
from scheduler_svc.domain.errors import Recovering, SchedulerError, ShuttingDown
from scheduler_svc.storage.state import State
from scheduler_svc.transport.client_sessions.session_servicer import SessionServicer
from scheduler_svc.wiring.control_plane import ControlPlane

log = logging.getLogger(__name__)

HAND_OVER_WAIT_S = 0.5
"""After how many seconds a client is asked to come again when a scheduler hands over."""

DRAINED_GRACE_S = 1.0
"""Seconds that calls have to end by themselves once their requests have ended."""

HAND_OVER_GRACE_S = 0.1
"""The same while requests go on: their readers are to look for the next scheduler."""

DRAIN_POLL_S = 0.05


class Leaving:
    """The end of one scheduler's service."""

    def __init__(
        self,
        control: ControlPlane,
        client_sessions: SessionServicer,
        state: State | None,
        term: Term | None,
        stop_serving: Callable[[float], Awaitable[None]],
    ) -> None:
        """``state``: what the next scheduler reads; None: there is no next one.  ``term``: None: it is the only one.

        ``stop_serving``: ends all calls, which have so many seconds to do so by themselves.
        """
        self._control = control
        self._client_sessions = client_sessions
        self._state = state
        self._term = term
        self._stop_serving = stop_serving

    async def hand_over(self) -> None:
        """Leave running requests to the next scheduler, and have their clients look for it."""
        control, state = self._control, self._state
        assert state is not None, "without it there is no next scheduler"
        log.info("leaving %d requests to the next scheduler", len(control.requests))
        why = self._reason()
        control.intake.close(why)
        if control.detached is not None:
            control.detached.freeze()
        # First: what ends from here on is not told to executors.
        control.instances.sessions.end_all("the scheduler hands over")
        control.requests.hand_over()  # calls that break now must not end what goes on elsewhere
        state.keep_instances(control.handed_over())
        state.freeze()
        self._client_sessions.close(why)
        await self._stop_serving(HAND_OVER_GRACE_S)

    async def drain(self, timeout_s: float) -> bool:
        """Let running requests finish within ``timeout_s`` seconds, end the others, and then all sessions.

        Returns False when another scheduler leads, or none, before that is done: the requests go on with the next one.
        """
        control = self._control
        control.intake.close()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._lost and any(not live.journaled for live in control.requests):
                    await asyncio.sleep(DRAIN_POLL_S)
        except TimeoutError:
            log.warning("%d requests did not finish within the drain timeout", len(control.requests))
            for live in control.requests:
                if not live.journaled:  # what the journal has goes on with the next scheduler
                    control.requests.end(live, ShuttingDown())
        if self._lost:
            return False
        if control.detached is not None:
            control.detached.freeze()
        self._client_sessions.close()
        control.instances.sessions.end_all("the scheduler is shutting down")
        await self._stop_serving(DRAINED_GRACE_S)
        return True

    @property
    def _lost(self) -> bool:
        return self._term is not None and self._term.over

    def _reason(self) -> SchedulerError:
        if self._term is None:
            return Recovering(HAND_OVER_WAIT_S, "the scheduler hands over to the next one")
        return self._term.error()
