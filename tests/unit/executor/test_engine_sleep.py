"""The engine sleeps and wakes as it is told, and never under an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.runtime import engine_sleep
from executor_svc.runtime.engine_port import EngineDeadError, EngineError
from executor_svc.runtime.engine_sleep import EngineSleep
from executor_svc.runtime.messages.reports import SleepReport, SleepState
from executor_svc.runtime.stuck_watch import LONGEST_STEP_S


class Sleeper(SimulatedEngine):
    """An engine of which only sleep counts."""

    def __init__(self) -> None:
        super().__init__(ModelSettings(model="sim"), SimulatedSettings(sleep_mode=True))
        self.calls: list[str] = []
        self.broken: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def sleep(self) -> None:
        await self._call("sleep")

    async def wake_up(self) -> None:
        await self._call("wake up")

    async def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.broken is not None:
            raise self.broken
        await self.open.wait()


class Place:
    """A place on a device that others may have."""

    def __init__(self) -> None:
        self.holder = ""

    def take(self) -> str:
        if self.holder not in ("", "us"):
            return f"taken by {self.holder}"
        self.holder = "us"
        return ""

    def give_back(self) -> None:
        self.holder = ""


class Bench:
    def __init__(self, place: Place | None = None, *, refusal_limit_s: float | None = None) -> None:
        self.engine = Sleeper()
        self.busy = ""
        self.changes = 0
        self.deaths: list[str] = []
        self.orders = 0
        self.sleep = EngineSleep(
            kept_awake=lambda: self.busy,
            on_change=self._changed,
            on_dead=lambda error: self.deaths.append(str(error)),
            place=place,
            refusal_limit_s=refusal_limit_s,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def order(self, *, asleep: bool) -> None:
        self.orders += 1
        self.sleep.order(self.orders, asleep=asleep)
        await settle()

    @property
    def report(self) -> SleepReport:
        found = self.sleep.report()
        assert found is not None
        return found


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    assert made.sleep.report() is None, "the engine is not up yet"
    task = asyncio.create_task(made.sleep.run(made.engine))
    await settle()
    yield made
    task.cancel()


async def test_it_falls_asleep_and_wakes_as_told_and_reports_each_change() -> None:
    async with bench() as made:
        assert made.report == SleepReport(state=SleepState.AWAKE, number=0)
        made.engine.open.clear()
        await made.order(asleep=True)
        assert (made.report.state, made.report.number) == (SleepState.FALLING_ASLEEP, 1)
        assert not made.sleep.awake
        made.engine.open.set()
        await settle()
        assert made.report.state is SleepState.ASLEEP
        assert made.report.sleep_s is not None
        before = made.changes
        await made.order(asleep=False)
        assert (made.report.state, made.report.number) == (SleepState.AWAKE, 2)
        assert made.report.wake_s is not None
        assert made.changes > before
        assert made.engine.calls == ["sleep", "wake up"]


async def test_it_does_not_fall_asleep_under_an_attempt() -> None:
    async with bench() as made:
        made.busy = "2 attempts run"
        await made.order(asleep=True)
        assert (made.report.state, made.report.reason) == (SleepState.AWAKE, "2 attempts run")
        assert made.sleep.awake
        made.busy = ""
        made.sleep.check()
        await settle()
        assert (made.report.state, made.report.reason) == (SleepState.ASLEEP, "")


async def test_an_order_that_is_taken_back_before_it_is_followed_changes_nothing() -> None:
    async with bench() as made:
        made.busy = "1 attempts run"
        await made.order(asleep=True)
        await made.order(asleep=False)
        made.busy = ""
        made.sleep.check()
        await settle()
        assert made.engine.calls == []
        assert made.report == SleepReport(state=SleepState.AWAKE, number=2)


async def test_an_order_to_wake_that_comes_while_it_falls_asleep_is_followed_then() -> None:
    async with bench() as made:
        made.engine.open.clear()
        await made.order(asleep=True)
        await made.order(asleep=False)
        assert made.engine.calls == ["sleep"]
        made.engine.open.set()
        await settle()
        assert made.engine.calls == ["sleep", "wake up"]
        assert made.report.state is SleepState.AWAKE


async def test_an_engine_that_refuses_stays_awake_and_is_asked_again() -> None:
    async with bench() as made:
        made.engine.broken = EngineError("1 requests are in the engine")
        await made.order(asleep=True)
        assert (made.report.state, made.report.reason) == (SleepState.AWAKE, "1 requests are in the engine")
        made.engine.broken = None
        made.sleep.check()
        await settle()
        assert made.report.state is SleepState.ASLEEP


async def test_an_engine_that_does_not_wake_is_dead() -> None:
    async with bench() as made:
        await made.order(asleep=True)
        made.engine.broken = EngineDeadError("out of memory")
        await made.order(asleep=False)
        assert made.deaths == ["out of memory"]
        assert not made.sleep.awake


async def test_a_change_that_takes_too_long_is_the_engine_s_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_sleep, "CHANGE_LIMIT_S", 0.001)
    async with bench() as made:
        made.engine.open.clear()
        await made.order(asleep=True)
        async with asyncio.timeout(5.0):
            while not made.deaths:
                await asyncio.sleep(0.001)
        assert made.deaths == ["it was falling asleep for more than 0.001 s"]


async def test_the_order_of_an_earlier_session_holds_and_its_number_does_not() -> None:
    async with bench() as made:
        await made.order(asleep=True)
        made.sleep.begin_session()
        assert (made.report.state, made.report.number) == (SleepState.ASLEEP, 0)
        assert made.engine.calls == ["sleep"]


async def test_an_order_that_is_given_again_in_a_new_session_is_answered_again() -> None:
    async with bench() as made:
        await made.order(asleep=True)
        made.sleep.begin_session()
        assert made.report.number == 0, "which the scheduler does not count"
        before = made.changes
        made.sleep.order(1, asleep=True)
        assert made.changes == before + 1
        assert (made.report.state, made.report.number) == (SleepState.ASLEEP, 1)


async def test_an_engine_that_refuses_is_asked_again_though_nothing_happens(quick: None) -> None:
    async with bench() as made:
        made.engine.broken = EngineError("KV of 16 tokens is kept for other engines")
        await made.order(asleep=True)
        assert made.report.reason == "KV of 16 tokens is kept for other engines"
        made.engine.broken = None
        await until(SleepState.ASLEEP, made)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_sleep, "START_POLL_S", 0.0)
    monkeypatch.setattr(engine_sleep, "WAKE_POLL_S", 0.001)
    monkeypatch.setattr(engine_sleep, "REFUSED_POLL_S", 0.001)


async def until(state: SleepState, made: Bench) -> None:
    async with asyncio.timeout(5.0):
        while made.report.state is not state:
            await asyncio.sleep(0.001)


async def test_an_engine_that_shares_a_device_starts_when_there_is_a_place(quick: None) -> None:
    place = Place()
    place.holder = "another"
    made = Bench(place)
    assert made.report.state is SleepState.NOT_STARTED
    starting = asyncio.create_task(made.sleep.may_start())
    await settle()
    assert (made.report.state, made.report.reason) == (SleepState.NOT_STARTED, "taken by another")
    told = made.changes
    await settle()
    assert made.changes == told, "the same is not reported again"
    place.give_back()
    await starting
    assert (made.report.state, place.holder) == (SleepState.STARTING, "us")


async def test_an_engine_that_shares_a_device_has_its_place_until_it_sleeps_and_waits_for_one_to_wake(
    quick: None,
) -> None:
    place = Place()
    made = Bench(place)
    await made.sleep.may_start()
    task = asyncio.create_task(made.sleep.run(made.engine))
    await settle()
    made.engine.open.clear()
    await made.order(asleep=True)
    assert (made.report.state, place.holder) == (SleepState.FALLING_ASLEEP, "us")
    made.engine.open.set()
    await settle()
    assert (made.report.state, place.holder) == (SleepState.ASLEEP, "")

    place.holder = "another"
    await made.order(asleep=False)
    assert (made.report.state, made.report.reason) == (SleepState.ASLEEP, "taken by another")
    assert made.engine.calls == ["sleep"]
    await made.order(asleep=True)
    assert (made.report.state, made.report.reason) == (SleepState.ASLEEP, "")
    await made.order(asleep=False)
    place.give_back()
    await until(SleepState.AWAKE, made)
    assert (made.engine.calls, place.holder) == (["sleep", "wake up"], "us")
    task.cancel()


async def test_an_engine_that_refuses_to_sleep_keeps_its_place(quick: None) -> None:
    place = Place()
    made = Bench(place)
    await made.sleep.may_start()
    task = asyncio.create_task(made.sleep.run(made.engine))
    made.engine.broken = EngineError("KV is kept for other engines")
    await settle()
    await made.order(asleep=True)
    assert (made.report.state, place.holder) == (SleepState.AWAKE, "us")
    task.cancel()


async def test_an_engine_that_refuses_to_sleep_for_too_long_counts_as_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one waits for its place, for ever if it stays awake."""
    monkeypatch.setattr(engine_sleep, "REFUSED_POLL_S", 0.0)
    place = Place()
    made = Bench(place, refusal_limit_s=0.01)
    await made.sleep.may_start()
    task = asyncio.create_task(made.sleep.run(made.engine))
    made.engine.broken = EngineError("1 requests are in the engine")
    await made.order(asleep=True)
    async with asyncio.timeout(10):
        await task
    (death,) = made.deaths
    assert death.endswith("s: 1 requests are in the engine")
    assert place.holder == "us", "until the process is gone"


class Refusing:
    """An engine that refuses to sleep, asked again when the test says, and a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refusal_limit_s: float) -> None:
        self.now = 0.0
        monkeypatch.setattr(engine_sleep, "REFUSED_POLL_S", None)
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now, raising=False)
        self.made = Bench(Place(), refusal_limit_s=refusal_limit_s)
        self.made.engine.broken = EngineError("busy")

    async def ask(self, now: float, busy: str = "") -> list[str]:
        """Have the engine be asked at a time, while ``busy`` keeps it awake; return the deaths so far."""
        self.now, self.made.busy = now, busy
        self.made.sleep.check()
        await settle()
        return self.made.deaths


@asynccontextmanager
async def refusing(monkeypatch: pytest.MonkeyPatch, *, refusal_limit_s: float) -> AsyncIterator[Refusing]:
    found = Refusing(monkeypatch, refusal_limit_s=refusal_limit_s)
    await found.made.sleep.may_start()
    task = asyncio.create_task(found.made.sleep.run(found.made.engine))
    await settle()
    await found.made.order(asleep=True)
    yield found
    task.cancel()


async def test_a_refusal_counts_from_the_latest_order(monkeypatch: pytest.MonkeyPatch) -> None:
    async with refusing(monkeypatch, refusal_limit_s=10.0) as it:
        assert await it.ask(9.0) == []
        await it.made.order(asleep=False)
        await it.made.order(asleep=True)
        assert await it.ask(18.0) == []
        assert await it.ask(20.0) == ["it has refused to sleep for 11 s: busy"]


async def test_a_refusal_counts_from_when_nothing_else_kept_the_engine_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    async with refusing(monkeypatch, refusal_limit_s=10.0) as it:
        assert await it.ask(9.0) == []
        assert await it.ask(12.0, busy="an adapter is loaded or unloaded") == []
        assert await it.ask(30.0) == []
        assert await it.ask(39.0) == []


async def test_a_time_in_which_the_process_stood_still_counts_little_as_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with refusing(monkeypatch, refusal_limit_s=2 * LONGEST_STEP_S) as it:
        assert await it.ask(1.0) == []
        assert await it.ask(3_600.0) == []
