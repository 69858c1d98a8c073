"""Background tasks: the death of one is noticed."""

from __future__ import annotations

import asyncio
import random

from executor_svc.runtime.session.backoff import Backoff
from executor_svc.runtime.tasks import WatchedTasks


async def fails() -> None:
    raise RuntimeError("broken")


async def returns() -> None:
    pass


async def runs_on() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_task_that_fails_is_named() -> None:
    tasks = WatchedTasks()
    tasks.start(runs_on(), name="quiet")
    tasks.start(fails(), name="heart")
    died = await tasks.failure()
    assert died.task_name == "heart"
    assert isinstance(died.__cause__, RuntimeError)
    await tasks.stop()


async def test_a_task_that_merely_ends_is_named_too() -> None:
    tasks = WatchedTasks()
    tasks.start(returns(), name="heart")
    assert str(await tasks.failure()) == "background task 'heart' ended"


async def test_stopping_is_no_death() -> None:
    tasks = WatchedTasks()
    task = tasks.start(runs_on(), name="heart")
    await tasks.stop()
    assert task.cancelled()
    watcher = asyncio.ensure_future(tasks.failure())
    await asyncio.sleep(0)
    assert not watcher.done()
    watcher.cancel()


def test_waits_between_tries_double_up_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff(first_s=1.0, most_s=6.0, source=random.Random(1))
    waits = [backoff.next() for _ in range(6)]
    for wait, most in zip(waits, (1, 2, 4, 6, 6, 6), strict=True):
        assert most / 2 <= wait <= most
    backoff.reset()
    assert backoff.next() <= 1.0
