"""Every background task has a name and is watched: the death of one ends the service, loudly, instead of leaving it
half alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskDied(Exception):
    """A background task ended, which none may do."""


class Supervisor:
    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._death: asyncio.Future[None] | None = None
        self._stopping = False

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def wait_for_death(self) -> None:
        """Returns never; raises TaskDied, from the cause, when a task ends."""
        if self._death is None:
            self._death = asyncio.get_running_loop().create_future()
            for task in [t for t in self._tasks if t.done()]:
                self._done(task)
        await asyncio.shield(self._death)

    async def stop(self) -> None:
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._stopping or self._death is None or self._death.done():
            return
        cause = None if task.cancelled() else task.exception()
        died = TaskDied(f"background task {task.get_name()!r} ended: {cause!r}")
        died.__cause__ = cause
        self._death.set_exception(died)
