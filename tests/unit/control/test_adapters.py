"""Adapters that are added and removed at run time: who holds them, who waits for them, who is refused."""

from __future__ import annotations

import pytest

from sage_common.virtual_clock import VirtualClock
from sage_telemetry.catalogue import INSTANCE_ADAPTERS
from scheduler_svc.control.adapters.instance_adapters import AdapterReport, AdapterState
from scheduler_svc.control.adapters.registry import ADAPTERS_LIMIT, AdapterRegistry
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource, RegisteredAdapter
from scheduler_svc.domain.errors import InvalidRequest, LimitReached, NoInstance, UnknownModel
from scheduler_svc.telemetry.adapters import AdapterReader
from scheduler_svc.telemetry.fleet import FleetReader
from tests.unit.control.test_adoption import Next
from tests.unit.control.test_operator_decisions import StoredDecisions
from tests.unit.control.world import MODEL, ModelledExecutor, World, expected


def source(name: str, path: str = "/weights") -> AdapterSource:
    return AdapterSource(name=name, source=f"{path}/{name}")


def loads(executor: ModelledExecutor, weights: str = "w", number: int | None = None) -> None:
    """Say that the engine holds what it was told to hold; ``number``: as of that order, the latest by default."""
    assert executor.session is not None
    states = [
        AdapterReport(source=source(name), state=AdapterState.LOADED, weights=weights)
        for name in executor.wanted_adapters or ()
    ]
    executor.world.plane.instances.reports.adapter_states(
        executor.session, executor.adapters_number if number is None else number, states
    )


def fails(executor: ModelledExecutor, name: str, reason: str) -> None:
    assert executor.session is not None
    failed = AdapterReport(source=source(name), state=AdapterState.FAILED, reason=reason)
    executor.world.plane.instances.reports.adapter_states(executor.session, executor.adapters_number, [failed])


def figures(world: World) -> dict[str, float]:
    """The exported number of a's adapters by state."""
    plane = world.plane
    reader = FleetReader(plane.scheduler, plane.clock, plane.requests, adapters=AdapterReader(plane.adapters))
    values = reader.read()[INSTANCE_ADAPTERS]
    assert {labels[:2] for labels, _ in values} <= {("a", MODEL)}
    return {labels[2]: value for labels, value in values}


def held(world: World, name: str) -> dict[str, tuple[AdapterState, str]]:
    view = next(each for each in world.plane.adapters.listed(MODEL) if each.adapter.name == name)
    return {each.instance_id: (each.state, each.reason) for each in view.instances}


async def test_a_request_waits_until_an_instance_has_loaded_its_adapter() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=2)
        await world.plane.adapters.add("", source("legal"))
        assert a.wanted_adapters == ["legal"]
        reader = await world.submit("r", adapter="legal", max_tokens=5)
        await world.advance(3)
        assert not reader.instances
        assert "does not hold the adapter 'legal' yet" in world.plane.explainer.explain(reader.live.key).waiting_because
        loads(a)
        await world.advance(1)
        assert reader.token_ids == expected(5)


async def test_a_request_goes_to_the_instance_that_holds_its_adapter() -> None:
    async with World() as world:
        world.add("a", adapter_slots=2)
        b = world.add("b", adapter_slots=2)
        await world.plane.adapters.add("", source("legal"))
        loads(b)
        readers = [await world.submit(f"r{i}", adapter="legal", max_tokens=5) for i in range(3)]
        await world.advance(1)
        assert [reader.instances for reader in readers] == [["b"]] * 3


async def test_a_request_waits_no_longer_than_any_that_nobody_can_serve() -> None:
    async with World(queue={"orphan_timeout_s": 10.0}) as world:
        world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("legal"))
        reader = await world.submit("r", adapter="legal")
        await world.advance(11)
        assert isinstance(reader.error, NoInstance)


async def test_a_request_for_one_that_loads_nowhere_is_refused() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("legal"))
        fails(a, "legal", "there is no directory /weights/legal")
        assert held(world, "legal") == {"a": (AdapterState.FAILED, "there is no directory /weights/legal")}
        assert a.wanted_adapters == []
        with pytest.raises(InvalidRequest, match=r"spec.adapter: 'legal' is not one of the model's adapters: none"):
            await world.submit("r", adapter="legal")
        await world.plane.adapters.add("", source("legal"))  # it is there now
        assert a.wanted_adapters == ["legal"]
        loads(a)
        reader = await world.submit("r2", adapter="legal", max_tokens=5)
        await world.advance(1)
        assert reader.token_ids == expected(5)


async def test_a_failover_goes_to_another_holder_with_the_same_weights_only() -> None:
    async with World() as world:
        a, b, c = (world.add(name, adapter_slots=1) for name in "abc")
        await world.plane.adapters.add("", source("legal"))
        loads(a)
        reader = await world.submit("r", adapter="legal", max_tokens=300)
        await world.advance(1)
        loads(b, weights="others")
        loads(c)
        a.crash()
        await world.advance(10)
        assert reader.token_ids == expected(300)
        assert reader.instances == ["a", "c"]
        condition = "instances of adapter 'legal' of 'm' run different models"
        loads(b, weights="others")
        assert condition in world.plane.scheduler.model_conditions()[0]


async def test_a_request_whose_adapter_makes_room_before_its_first_token_goes_on_elsewhere() -> None:
    async with World() as world:
        a, b = (world.add(name, adapter_slots=1) for name in "ab")
        await world.plane.adapters.add("", source("legal"))
        loads(a)
        reader = await world.submit("r", adapter="legal", max_tokens=300)
        await world.advance(0.001)
        assert reader.instances == ["a"]
        loads(b)
        await world.plane.adapters.add("", source("poet"))
        await world.submit("p", adapter="poet", max_tokens=5)
        world.plane.adapters.check()
        assert (a.wanted_adapters, b.wanted_adapters) == (["poet"], ["legal"])
        loads(a)
        await world.advance(1)
        assert 0 < len(reader.token_ids) < 300
        a.crash()
        await world.advance(10)
        assert reader.token_ids == expected(300)
        assert reader.instances == ["a", "b"]
        assert not world.plane.scheduler.model_conditions()


async def test_a_request_whose_first_token_comes_after_a_reconnect_goes_on_elsewhere() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("legal"))
        loads(a)
        reader = await world.submit("r", adapter="legal", max_tokens=300)
        await world.advance(0.001)
        a.disconnect()
        a.connect()
        await world.advance(1)
        assert 0 < len(reader.token_ids) < 300
        loads(world.add("b", adapter_slots=1))
        a.crash()
        await world.advance(10)
        assert reader.token_ids == expected(300)


async def test_a_removal_lets_accepted_requests_end_and_refuses_new_ones() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("legal"))
        loads(a)
        reader = await world.submit("r", adapter="legal", max_tokens=300)
        await world.advance(1)
        view = await world.plane.adapters.remove("", "legal")
        assert view.adapter.removing
        assert view.requests == 1
        with pytest.raises(InvalidRequest, match="'legal' is being removed"):
            await world.submit("late", adapter="legal")
        with pytest.raises(InvalidRequest, match="is being removed"):
            await world.plane.adapters.add("", source("legal"))
        assert a.wanted_adapters == ["legal"]
        await world.advance(5)
        assert reader.token_ids == expected(300)
        assert a.wanted_adapters == []
        assert world.plane.adapters.listed() == []
        with pytest.raises(InvalidRequest, match="is not one of the model's adapters: none"):
            await world.submit("later", adapter="legal")


async def test_a_removal_ends_when_no_request_of_an_earlier_scheduler_can_come_back() -> None:
    after = Next("a", "b")
    adapters = after.plane.adapters
    after.register("b")
    await adapters.add("", source("legal"))
    await adapters.remove("", "legal")
    adapters.check()
    assert [each.adapter.removing for each in adapters.listed()] == [True], "a may hold requests that name it"
    after.register("a")
    adapters.check()
    assert adapters.listed() == []


async def test_the_adapter_used_longest_ago_makes_room_for_one_that_is_asked_for() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("one"))
        await world.advance(1)
        await world.plane.adapters.add("", source("two"))
        assert a.wanted_adapters == ["two"]
        loads(a)
        state, reason = held(world, "one")["a"]
        assert state is AdapterState.ABSENT
        assert reason == "its 1 slots are for adapters that are in use or were used later: two"
        reader = await world.submit("r", adapter="one", max_tokens=5)
        await world.advance(0.2)
        assert a.wanted_adapters == ["one"]
        loads(a)
        await world.advance(1)
        assert reader.token_ids == expected(5)


async def test_an_executor_of_an_earlier_version_is_left_out_and_said() -> None:
    async with World() as world:
        old = world.add("old", adapter_slots=1, run_time_adapters=False)
        none = world.add("none")
        await world.plane.adapters.add("", source("legal"))
        assert old.wanted_adapters is None
        assert not none.wanted_adapters
        assert held(world, "legal") == {
            "none": (AdapterState.UNSUPPORTED, "its engine was started without slots for adapters"),
            "old": (AdapterState.UNSUPPORTED, "its executor is of a version that takes no adapters while it runs"),
        }
        with pytest.raises(InvalidRequest, match="is not one of the model's adapters"):
            await world.submit("r", adapter="legal")


async def test_an_instance_that_comes_later_is_told_and_one_that_reconnects_goes_on() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("legal"))
        loads(a)
        b = world.add("b", adapter_slots=1)
        assert b.wanted_adapters == ["legal"]
        a.disconnect()
        await world.advance(0.05)
        a.wanted_adapters = []
        a.connect()
        assert (a.wanted_adapters or []) == ["legal"]
        loads(a, number=0)  # as it was when the session began
        assert held(world, "legal")["a"][0] is AdapterState.LOADING
        loads(a)
        assert held(world, "legal")["a"] == (AdapterState.LOADED, "")
        reader = await world.submit("r", adapter="legal", max_tokens=5)
        await world.advance(1)
        assert reader.instances == ["a"]


async def test_a_report_from_before_an_adapter_was_wanted_again_does_not_count() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("legal"))
        loads(a)
        await world.plane.adapters.remove("", "legal")
        await world.plane.adapters.add("", source("legal"))  # the executor may be unloading it
        assert held(world, "legal")["a"][0] is AdapterState.LOADING
        loads(a, number=a.adapters_number - 1)
        assert held(world, "legal")["a"][0] is AdapterState.LOADING
        loads(a)
        assert held(world, "legal")["a"][0] is AdapterState.LOADED


async def test_a_new_engine_has_to_load_it_again() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=1)
        await world.plane.adapters.add("", source("legal"))
        loads(a)
        a.crash()
        await world.advance(60)
        a.restart()
        assert held(world, "legal")["a"][0] is AdapterState.LOADING


async def test_names_that_are_taken_are_refused() -> None:
    async with World() as world:
        world.add("a", adapter_slots=1, adapters=frozenset({"own"}))
        await world.plane.adapters.add("", source("legal"))
        for name, path, why in (
            ("own", "/weights", "from its engine's start"),
            (MODEL, "/weights", "is the name of a model"),
            ("legal", "/other", "is registered with another source: /weights/legal"),
        ):
            with pytest.raises(InvalidRequest, match=why):
                await world.plane.adapters.add("", source(name, path))
        with pytest.raises(UnknownModel):
            await world.plane.adapters.add("nobody", source("x"))
        with pytest.raises(InvalidRequest, match="'x' is not a registered adapter of 'm'; there are: legal"):
            await world.plane.adapters.remove("", "x")


async def test_each_instances_adapters_are_counted_by_state() -> None:
    async with World() as world:
        a = world.add("a", adapter_slots=3, adapters=frozenset({"own"}))
        world.add("without")
        for name in ("one", "two", "broken"):
            await world.plane.adapters.add("", source(name))
        loads(a)
        fails(a, "broken", "there is no directory /weights/broken")
        loads(a)
        assert figures(world) == {"loading": 0, "loaded": 3, "unloading": 0, "failed": 1}
        await world.plane.adapters.add("", source("three"))
        assert figures(world) == {"loading": 1, "loaded": 3, "unloading": 0, "failed": 1}
        await world.plane.adapters.remove("", "broken")
        assert figures(world)["failed"] == 0
        a.crash()
        await world.advance(60)
        assert figures(world) == {}


async def test_the_registry_outlives_the_scheduler() -> None:
    store = StoredDecisions()
    registry = AdapterRegistry(OperatorDecisions(VirtualClock(), store))
    one = RegisteredAdapter(model="m", source=AdapterSource(name="one", source="org/one", revision="v1", max_rank=8))
    two = RegisteredAdapter(model="m", source=source("two"))
    for each in (one, two):
        registry.put(each)
    leaving = registry.begin_removal(one)
    await registry.write()
    registry.drop("m", "two")
    await registry.write()
    decisions = OperatorDecisions(VirtualClock(), store)
    await decisions.load()
    next_registry = AdapterRegistry(decisions)
    next_registry.load()
    assert next_registry.all() == [leaving]


async def test_the_registry_is_bounded() -> None:
    registry = AdapterRegistry(OperatorDecisions(VirtualClock()))
    for number in range(ADAPTERS_LIMIT):
        registry.put(RegisteredAdapter(model="m", source=source(f"a{number}")))
    with pytest.raises(LimitReached):
        registry.put(RegisteredAdapter(model="m", source=source("one too many")))
