"""Runs a coroutine at once, and in a task only if it waits for something."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from typing import Any


def run_eagerly(coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None] | None:
    """Run ``coroutine`` up to its end or to the first thing it waits for.

    Return None if it ended, else the task that goes on with it.  Raises what it raised until then.  That first part
    runs in the caller's task, so it must not begin a timeout or a task group.  A task that is cancelled before it goes
    on closes the coroutine.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    task = asyncio.get_running_loop().create_task(_rest(coroutine, waits_for), name=name)
    task.add_done_callback(lambda _: coroutine.close())  # a task that is cancelled before it runs knows no coroutine
    return task


async def _rest(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _continued(coroutine, waits_for)


@types.coroutine
def _continued(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    """Yield what ``coroutine`` waits for, first ``waits_for``, and pass on what comes of it."""
    try:
        while True:
            try:
                value = yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                waits_for = coroutine.throw(error)
            else:
                waits_for = coroutine.send(value)
    except StopIteration:
        return
