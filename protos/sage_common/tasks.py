"""Background tasks that a service needs: each has a name, and the end of one ends the service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class TaskDied(Exception):
    """A background task ended before ``stop``; ``__cause__`` is its exception, if it had one."""

    def __init__(self, name: str, cause: BaseException | None, *, cancelled: bool = False) -> None:
        how = f"failed: {cause!r}" if cause is not None else "was cancelled" if cancelled else "ended"
        super().__init__(f"background task {name!r} {how}")
        self.task_name = name
        self.__cause__ = cause


class WatchedTasks:
    """Tasks that must run until ``stop``.

    A task that returns, raises or is cancelled before ``stop`` counts as dead: a service must not go on with a part
    missing.  After ``stop`` was called, tasks may end.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()  # those that run; bounded by the calls of ``start``
        self._first_death: TaskDied | None = None
        self._died = asyncio.Event()
        self._stopping = False

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Run ``work`` in a task of its own; ``name`` is its name in log lines."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def failure(self) -> TaskDied:
        """Return how the first task died; wait until one dies."""
        await self._died.wait()
        assert self._first_death is not None
        return self._first_death

    async def stop(self) -> None:
        """Cancel every task that still runs and wait until all have ended."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        cause = None if task.cancelled() else task.exception()
        if self._stopping or self._first_death is not None:
            if cause is not None:
                log.error("background task %r failed while the service was ending", task.get_name(), exc_info=cause)
            return
        self._first_death = TaskDied(task.get_name(), cause, cancelled=task.cancelled())
        self._died.set()
