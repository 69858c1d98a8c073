"""A background task that ends before it is told to ends the service."""

from __future__ import annotations

import asyncio

import pytest

from sage_common.tasks import WatchedTasks


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def fails() -> None:
    raise RuntimeError("out of luck")


async def returns() -> None:
    return


async def test_a_task_that_fails_is_named_with_its_cause() -> None:
    tasks = WatchedTasks()
    tasks.start(for_ever(), name="steady")
    tasks.start(fails(), name="watchdog")
    died = await tasks.failure()
    assert str(died) == "background task 'watchdog' failed: RuntimeError('out of luck')"
    assert died.task_name == "watchdog"
    assert isinstance(died.__cause__, RuntimeError)
    await tasks.stop()


async def test_a_task_that_returns_has_died_as_well() -> None:
    tasks = WatchedTasks()
    tasks.start(returns(), name="dispatcher")
    died = await tasks.failure()
    assert str(died) == "background task 'dispatcher' ended"
    assert died.__cause__ is None
    await tasks.stop()


async def test_a_task_that_somebody_else_cancels_has_died_as_well() -> None:
    """Whoever cancelled it, the service would go on half alive."""
    tasks = WatchedTasks()
    task = tasks.start(for_ever(), name="heart")
    await asyncio.sleep(0)
    task.cancel()
    assert str(await tasks.failure()) == "background task 'heart' was cancelled"
    await tasks.stop()


async def test_a_death_before_anyone_waits_is_not_missed() -> None:
    tasks = WatchedTasks()
    task = tasks.start(fails(), name="early")
    await asyncio.wait({task})
    assert (await tasks.failure()).task_name == "early"
    assert (await tasks.failure()).task_name == "early", "and is told to everyone who asks"
    await tasks.stop()


async def test_the_first_death_is_the_one_told() -> None:
    tasks = WatchedTasks()
    waiting = asyncio.ensure_future(tasks.failure())
    tasks.start(fails(), name="first")
    tasks.start(fails(), name="second")
    assert (await waiting).task_name == "first"
    await tasks.stop()


async def test_the_failure_of_a_second_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    tasks = WatchedTasks()
    tasks.start(fails(), name="first")
    tasks.start(fails(), name="second")
    await tasks.failure()
    await tasks.stop()
    [record] = [each for each in caplog.records if "'second'" in each.getMessage()]
    assert record.exc_info is not None


async def test_stopping_ends_every_task_and_is_no_death() -> None:
    tasks = WatchedTasks()
    task = tasks.start(for_ever(), name="steady")
    waiting = asyncio.ensure_future(tasks.failure())
    await asyncio.sleep(0)
    await tasks.stop()
    assert task.cancelled()
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


def test_they_can_be_made_before_there_is_an_event_loop() -> None:
    tasks = WatchedTasks()

    async def died() -> str:
        tasks.start(returns(), name="late")
        return (await tasks.failure()).task_name

    assert asyncio.run(died()) == "late"
