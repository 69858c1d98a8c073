"""Background tasks that are watched: each has a name, and the death of one is everyone's business."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskDied(Exception):
    """A background task ended that should have gone on."""

    def __init__(self, name: str, cause: BaseException | None) -> None:
        super().__init__(f"background task '{name}' " + ("ended" if cause is None else f"failed: {cause!r}"))
        self.task_name = name


class WatchedTasks:
    """Tasks that must outlive whoever waits in ``failure``.  Bounded by what is started, a handful."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: asyncio.Future[TaskDied] = asyncio.get_running_loop().create_future()

    def start(self, work: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._failure.done():
            return
        died = TaskDied(task.get_name(), task.exception())
        died.__cause__ = task.exception()
        self._failure.set_result(died)

    async def failure(self) -> TaskDied:
        """Waits for the first task that dies."""
        return await asyncio.shield(self._failure)

    async def stop(self) -> None:
        """Cancel what still runs and wait for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
