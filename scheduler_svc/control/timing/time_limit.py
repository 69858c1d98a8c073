"""Bounds how long some work may take, on the injected clock."""

from __future__ import annotations

import asyncio
from types import TracebackType

from sage_common.clock import Clock, Timer
from scheduler_svc.domain.errors import DeadlineExceeded


class TimeLimit:
    """``async with TimeLimit(clock, until, where):`` cancels its body at ``until`` and raises DeadlineExceeded.

    If somebody else cancels the task, even at the same moment, the cancellation goes on.
    """

    def __init__(self, clock: Clock, until: float, where: str) -> None:
        self._clock = clock
        self._until = until
        self._where = where
        self._task: asyncio.Task[object] | None = None
        self._timer: Timer | None = None
        self._cancelling = 0
        self._over = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        assert self._task is not None, "asynchronous code runs in a task"
        self._cancelling = self._task.cancelling()
        self._timer = self._clock.call_at(self._until, self._cancel)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        assert self._timer is not None
        self._timer.cancel()
        if self._over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise DeadlineExceeded(self._where) from error

    def _cancel(self) -> None:
        self._over = True
        assert self._task is not None
        self._task.cancel()
