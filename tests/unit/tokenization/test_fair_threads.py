"""Callers get threads in turn, and what was cancelled holds nobody up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from scheduler_svc.tokenization.fair_threads import FairThreads


@pytest.fixture
async def threads() -> AsyncIterator[FairThreads]:
    made = FairThreads(1, "test")
    yield made
    made.close()


def started(threads: FairThreads, caller: str, work: Callable[[], object]) -> asyncio.Task[object]:
    return asyncio.create_task(threads.run(caller, work))


async def test_one_callers_many_do_not_keep_anothers_one_waiting(threads: FairThreads) -> None:
    go, order = threading.Event(), list[str]()
    first = started(threads, "many", go.wait)
    await asyncio.sleep(0)
    tasks = [started(threads, "many", lambda: order.append("many")) for _ in range(5)]
    await asyncio.sleep(0)
    tasks += [started(threads, caller, lambda caller=caller: order.append(caller)) for caller in ("one", "two")]  # type: ignore[misc]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, *tasks)
    assert order == ["many", "one", "two", "many", "many", "many", "many"]
    assert (threads._free, len(threads._waiting)) == (1, 0)


async def test_a_caller_that_stops_waiting_is_skipped(threads: FairThreads) -> None:
    go, order = threading.Event(), list[str]()
    first = started(threads, "a", go.wait)
    await asyncio.sleep(0)
    waiting = [started(threads, caller, lambda caller=caller: order.append(caller)) for caller in "bcd"]  # type: ignore[misc]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    go.set()
    await asyncio.gather(first, *waiting[1:])
    assert order == ["c", "d"]
    assert threads._free == 1


async def test_one_that_is_cancelled_as_its_turn_comes_passes_it_on(threads: FairThreads) -> None:
    go = threading.Event()
    first = started(threads, "a", go.wait)
    await asyncio.sleep(0)
    second, third = started(threads, "b", lambda: 2), started(threads, "c", lambda: 3)
    await asyncio.sleep(0)
    threads._release()  # as if the first had ended now; the second has not run since
    second.cancel()
    go.set()
    assert await third == 3
    await asyncio.wait([first, second])
    assert second.cancelled()


async def test_work_that_nobody_waits_for_keeps_its_thread_until_its_end(threads: FairThreads) -> None:
    go = threading.Event()
    first = started(threads, "a", go.wait)
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait([first])
    second = started(threads, "b", lambda: 2)
    await asyncio.sleep(0.01)
    assert not second.done()
    go.set()
    assert await second == 2


async def test_errors_reach_the_caller(threads: FairThreads) -> None:
    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await threads.run("a", fail)
    assert await threads.run("a", lambda: 1) == 1
