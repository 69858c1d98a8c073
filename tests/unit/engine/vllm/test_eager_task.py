"""A coroutine that waits for nothing needs no task."""

from __future__ import annotations

import asyncio

import pytest

from executor_svc.engine.vllm.step_path.eager_task import run_eagerly


class Work:
    """A coroutine that says how far it came; it waits for ``gates``, one after the other."""

    def __init__(self, *gates: asyncio.Future[str]) -> None:
        self.said: list[str] = []
        self._gates = gates

    async def run(self) -> None:
        self.said.append("begun")
        try:
            for gate in self._gates:
                self.said.append(await gate)
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise
        finally:
            self.said.append("ended")


def gate() -> asyncio.Future[str]:
    return asyncio.get_running_loop().create_future()


async def test_what_waits_for_nothing_is_over_at_once_and_without_a_task() -> None:
    work = Work()
    before = asyncio.all_tasks()
    assert run_eagerly(work.run(), name="work") is None
    assert work.said == ["begun", "ended"]
    assert asyncio.all_tasks() == before


async def test_what_waits_goes_on_in_a_task() -> None:
    first, second = gate(), gate()
    work = Work(first, second)
    task = run_eagerly(work.run(), name="work")
    assert task is not None
    assert (task.get_name(), work.said) == ("work", ["begun"])
    first.set_result("one")
    second.set_result("two")
    await task
    assert work.said == ["begun", "one", "two", "ended"]


async def test_what_gives_the_loop_a_turn_goes_on() -> None:
    said = []

    async def turns() -> None:
        for number in range(3):
            await asyncio.sleep(0)
            said.append(number)

    task = run_eagerly(turns(), name="turns")
    assert task is not None
    await task
    assert said == [0, 1, 2]


async def test_an_error_is_raised_at_once_or_is_the_tasks() -> None:
    async def fails() -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        run_eagerly(fails(), name="fails")
    later = gate()
    task = run_eagerly(Work(later).run(), name="work")
    assert task is not None
    later.set_exception(ValueError("later"))
    with pytest.raises(ValueError, match="later"):
        await task


@pytest.mark.parametrize(("turns", "said"), [(0, []), (2, ["cancelled"])])
async def test_a_cancelled_task_ends_the_coroutine(turns: int, said: list[str]) -> None:
    work = Work(gate())
    task = run_eagerly(work.run(), name="work")
    assert task is not None
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert work.said == ["begun", *said, "ended"]
