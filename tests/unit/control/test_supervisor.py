"""A background task that dies ends the service."""

from __future__ import annotations

import asyncio

import pytest

from scheduler_svc.control.supervisor import Supervisor, TaskDied


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def fails() -> None:
    raise RuntimeError("out of luck")


async def returns() -> None:
    return


async def test_a_task_that_fails_is_named_with_its_cause() -> None:
    supervisor = Supervisor()
    supervisor.start("steady", for_ever())
    supervisor.start("watchdog", fails())
    with pytest.raises(TaskDied, match=r"'watchdog'.*out of luck") as died:
        await supervisor.wait_for_death()
    assert isinstance(died.value.__cause__, RuntimeError)
    await supervisor.stop()


async def test_a_task_that_returns_has_died_as_well() -> None:
    supervisor = Supervisor()
    supervisor.start("dispatcher", returns())
    with pytest.raises(TaskDied, match="'dispatcher'"):
        await supervisor.wait_for_death()
    await supervisor.stop()


async def test_a_death_before_anyone_waits_is_not_missed() -> None:
    supervisor = Supervisor()
    supervisor.start("early", fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(TaskDied, match="'early'"):
        await supervisor.wait_for_death()
    await supervisor.stop()


async def test_the_first_death_is_the_one_told() -> None:
    supervisor = Supervisor()
    waiting = asyncio.ensure_future(supervisor.wait_for_death())
    supervisor.start("first", fails())
    supervisor.start("second", fails())
    with pytest.raises(TaskDied, match="'first'"):
        await waiting
    await supervisor.stop()


async def test_stopping_is_no_death() -> None:
    supervisor = Supervisor()
    supervisor.start("steady", for_ever())
    waiting = asyncio.ensure_future(supervisor.wait_for_death())
    await asyncio.sleep(0)
    await supervisor.stop()
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
