"""A virtual clock moves only when told to, and otherwise does what the real one does."""

from __future__ import annotations

import asyncio

import pytest

from sage_common.clock import AsyncioClock, Clock
from sage_common.virtual_clock import VirtualClock


async def test_time_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock(start=5.0)
    await clock.settle()
    assert clock.now() == 5.0
    await clock.advance(2.5)
    assert clock.now() == 7.5


async def test_timers_run_in_order_each_at_its_own_moment() -> None:
    clock, ran = VirtualClock(), []
    for when in (3.0, 1.0, 2.0, 1.0):
        clock.call_at(when, lambda when=when: ran.append((when, clock.now())))  # type: ignore[misc]
    await clock.advance(2.0)
    assert ran == [(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]


async def test_a_timer_may_start_another_within_the_same_advance() -> None:
    clock, ran = VirtualClock(), []

    def start_another() -> None:
        clock.call_at(1.5, lambda: ran.append(clock.now()))

    clock.call_at(1.0, start_another)
    await clock.advance(2.0)
    assert ran == [1.5]


async def test_a_cancelled_timer_does_not_run_and_is_no_step() -> None:
    clock, ran = VirtualClock(), []
    clock.call_at(1.0, lambda: ran.append("cancelled")).cancel()
    clock.call_at(2.0, lambda: ran.append("kept"))
    assert await clock.step()
    assert (ran, clock.now()) == (["kept"], 2.0)
    assert not await clock.step()


async def test_a_sleeper_wakes_at_its_moment() -> None:
    clock = VirtualClock()
    sleeper = asyncio.ensure_future(clock.sleep(1.0))
    await clock.advance(0.9)
    assert not sleeper.done()
    await clock.advance(0.1)
    assert sleeper.done()


async def test_a_sleeper_that_is_cancelled_leaves_nothing_behind() -> None:
    clock = VirtualClock()
    sleeper = asyncio.ensure_future(clock.sleep(1.0))
    await clock.settle()
    sleeper.cancel()
    await clock.settle()
    assert not await clock.step()


async def test_work_runs_to_its_end_in_no_time() -> None:
    clock = VirtualClock()

    async def work() -> float:
        await clock.sleep(3_600.0)
        return clock.now()

    assert await clock.run(work()) == 3_600.0


async def test_work_that_takes_many_turns_and_no_time_does_not_hang() -> None:
    clock = VirtualClock()

    async def work() -> float:
        for _ in range(100):
            await clock.sleep(0.0)
        return clock.now()

    assert await clock.run(work()) == 0.0


async def test_work_that_would_hang_is_found_out() -> None:
    with pytest.raises(AssertionError, match="hang"):
        await VirtualClock().run(asyncio.Event().wait())


@pytest.mark.parametrize("clock", [AsyncioClock(), VirtualClock()], ids=["asyncio", "virtual"])
@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_no_time_to_sleep_is_a_turn_for_the_others(clock: Clock, seconds: float) -> None:
    ran: list[str] = []
    asyncio.get_running_loop().call_soon(ran.append, "other")
    await clock.sleep(seconds)
    assert ran == ["other"]


async def test_the_real_clock_is_the_event_loops() -> None:
    clock = AsyncioClock()
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert before <= clock.now() <= loop.time(), "asyncio's deadlines are of the same clock"
    ran = asyncio.Event()
    clock.call_at(clock.now() - 1.0, ran.set)
    await ran.wait()
    clock.call_at(clock.now(), lambda: pytest.fail("it was cancelled")).cancel()
    await clock.sleep(0.001)
