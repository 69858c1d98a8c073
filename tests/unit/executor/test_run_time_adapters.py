"""The adapters that an executor's engine holds follow what the scheduler wants, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.runtime import run_time_adapters
from executor_svc.runtime.engine_port import AdapterSource, EngineError, LoadedAdapter, ModelError
from executor_svc.runtime.messages.reports import AdapterState
from executor_svc.runtime.observer import NullObserver
from executor_svc.runtime.run_time_adapters import RunTimeAdapters


class Loader(SimulatedEngine):
    """An engine of which only adapters count."""

    def __init__(self, slots: int = 2) -> None:
        super().__init__(ModelSettings(model="sim"), SimulatedSettings(adapter_slots=slots))
        self.calls: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.open = asyncio.Event()
        self.open.set()

    async def add_adapter(self, source: AdapterSource) -> LoadedAdapter:
        self.calls.append(f"add {source.name}")
        await self.open.wait()
        if source.name in self.broken:
            raise self.broken[source.name]
        return LoadedAdapter(weights=f"weights of {source.source}", rank=8)

    async def remove_adapter(self, name: str) -> None:
        self.calls.append(f"remove {name}")
        await self.open.wait()
        if name in self.broken:
            raise self.broken[name]


class Results(NullObserver):
    """An observer that keeps how loads and unloads ended."""

    def __init__(self) -> None:
        self.results: list[str] = []

    def adapter_loaded(self, result: str, took_s: float) -> None:
        assert took_s >= 0
        self.results.append(result)

    def adapter_unloaded(self, result: str) -> None:
        self.results.append(result)


class Bench:
    def __init__(self, engine: Loader) -> None:
        self.engine = engine
        self.used: set[str] = set()
        self.reports = 0
        self.orders = 0
        self.observed = Results()
        self.adapters = RunTimeAdapters(
            uses=lambda name: name in self.used, on_change=self._changed, observer=self.observed
        )

    def _changed(self) -> None:
        self.reports += 1

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def want(self, *names: str, path: str = "/w") -> None:
        self.orders += 1
        self.adapters.want(self.orders, [AdapterSource(name=name, source=f"{path}/{name}") for name in names])
        await self.settle()

    @property
    def states(self) -> dict[str, AdapterState]:
        found = self.adapters.states()
        return {} if found is None else {each.source.name: each.state for each in found.adapters}


@asynccontextmanager
async def bench(slots: int = 2) -> AsyncIterator[Bench]:
    made = Bench(Loader(slots))
    task = asyncio.create_task(made.adapters.run(made.engine))
    yield made
    assert not task.done()
    task.cancel()


async def test_nothing_is_said_before_anything_was_wanted() -> None:
    async with bench() as made:
        assert made.adapters.states() is None
        await made.want()
        assert made.states == {}
        assert made.reports == 1


async def test_what_is_wanted_is_loaded_in_order_and_reported() -> None:
    async with bench() as made:
        made.engine.open.clear()
        await made.want("b", "a")
        assert made.states == {"a": AdapterState.WAITING, "b": AdapterState.LOADING}
        made.engine.open.set()
        await made.settle()
        assert made.engine.calls == ["add b", "add a"]
        states = made.adapters.states()
        assert states is not None
        assert [(each.state, each.weights, each.rank) for each in states.adapters] == [
            (AdapterState.LOADED, "weights of /w/a", 8),
            (AdapterState.LOADED, "weights of /w/b", 8),
        ]


async def test_one_that_is_removed_and_added_again_at_once_is_loaded_anew() -> None:
    async with bench() as made:
        await made.want("a")
        made.adapters.want(2, [])
        made.orders = 2
        await made.want("a")
        assert made.engine.calls == ["add a", "remove a", "add a"]
        assert made.states == {"a": AdapterState.LOADED}


async def test_one_in_use_that_is_wanted_again_stays() -> None:
    async with bench() as made:
        await made.want("a")
        made.used.add("a")
        await made.want()
        await made.want("a")
        made.used.clear()
        made.adapters.check()
        await made.settle()
        assert made.engine.calls == ["add a"]


async def test_one_in_use_is_unloaded_after_its_attempts_and_only_then_makes_room() -> None:
    async with bench(slots=1) as made:
        await made.want("a")
        made.used.add("a")
        await made.want("b")
        assert made.states == {"a": AdapterState.UNLOADING, "b": AdapterState.WAITING}
        made.adapters.check()
        await made.settle()
        assert made.engine.calls == ["add a"]
        made.used.clear()
        made.adapters.check()
        await made.settle()
        assert made.engine.calls == ["add a", "remove a", "add b"]
        assert made.states == {"b": AdapterState.LOADED}


async def test_one_that_is_wanted_again_before_it_was_unloaded_stays() -> None:
    async with bench() as made:
        await made.want("a")
        made.used.add("a")
        await made.want()
        await made.want("a")
        assert made.engine.calls == ["add a"]
        assert made.states == {"a": AdapterState.LOADED}


async def test_one_that_is_wanted_again_while_it_is_unloaded_is_loaded_anew() -> None:
    async with bench() as made:
        await made.want("a")
        made.engine.open.clear()
        await made.want()
        await made.want("a")
        assert made.states == {"a": AdapterState.WAITING}
        made.engine.open.set()
        await made.settle()
        assert made.engine.calls == ["add a", "remove a", "add a"]
        assert made.states == {"a": AdapterState.LOADED}


async def test_another_source_under_the_name_replaces_it() -> None:
    async with bench() as made:
        await made.want("a")
        await made.want("a", path="/new")
        assert made.engine.calls == ["add a", "remove a", "add a"]
        states = made.adapters.states()
        assert states is not None
        assert states.adapters[0].weights == "weights of /new/a"


@pytest.mark.parametrize("error", [ModelError("no such directory"), EngineError("no such directory")])
async def test_a_failure_is_told_and_tried_again_once_it_was_not_wanted(error: Exception) -> None:
    async with bench() as made:
        made.engine.broken["a"] = error
        await made.want("a", "b")
        states = made.adapters.states()
        assert states is not None
        assert [(each.state, each.reason) for each in states.adapters] == [
            (AdapterState.FAILED, "no such directory"),
            (AdapterState.LOADED, ""),
        ]
        await made.want("a", "b")
        assert made.engine.calls == ["add a", "add b"]
        made.engine.broken.clear()
        await made.want("b")
        await made.want("a", "b")
        assert made.states == {"a": AdapterState.LOADED, "b": AdapterState.LOADED}


async def test_a_defect_is_a_failure_of_that_adapter() -> None:
    async with bench() as made:
        made.engine.broken["a"] = RuntimeError("unforeseen")
        await made.want("a")
        assert made.states == {"a": AdapterState.FAILED}


async def test_loading_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_time_adapters, "LOAD_LIMIT_S", 0.01)
    async with bench() as made:
        made.engine.open.clear()
        await made.want("a")
        async with asyncio.timeout(10):
            while made.states != {"a": AdapterState.FAILED}:
                await asyncio.sleep(0.005)
        states = made.adapters.states()
        assert states is not None
        assert states.adapters[0].reason == "it was not loaded within 0.01 s"
        assert made.observed.results == ["timed_out"]


async def test_one_that_cannot_be_unloaded_is_given_up() -> None:
    async with bench() as made:
        await made.want("a")
        made.engine.broken["a"] = EngineError("vLLM says no")
        await made.want()
        assert made.states == {}


async def test_every_order_is_reported_on_once() -> None:
    async with bench() as made:
        await made.want("a")
        before = made.reports
        await made.want("a")
        made.adapters.check()
        await made.settle()
        assert made.reports == before + 1
        states = made.adapters.states()
        assert states is not None
        assert states.number == 2
        made.adapters.begin_session()
        states = made.adapters.states()
        assert states is not None
        assert states.number == 0


async def test_the_observer_is_told_how_each_load_and_unload_ended() -> None:
    async with bench(slots=4) as made:
        broken = {"no files": ModelError("x"), "no engine": EngineError("x"), "a defect": RuntimeError("x")}
        made.engine.broken.update(broken)
        await made.want("fine", *broken)
        assert made.observed.results == ["loaded", "unusable", "engine_failed", "executor_failed"]
        await made.want("other")
        made.engine.broken["other"] = EngineError("vLLM says no")
        await made.want()
        assert made.observed.results[4:] == ["unloaded", "loaded", "engine_failed"]
