"""A fleet on a Ray cluster of three raylets: real services as processes, simulated engines.

Each test makes a place of its own: what it needs to know of the tests before it, Ray remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sage_client import AsyncClient, Completion, InstanceState
from sage_fleet.ray_place.place import RayPlace
from sage_fleet.specification.fleet import Fleet
from tests.chaos.load import Load, Tally
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.ray_nodes import RayNodes
from tests.support.simulated_answer import ENDLESS

pytestmark = pytest.mark.timeout(180)

CPUS = 2  # of a node
ZONES = ("a", "b", "c")
AGAIN_WITHIN_S = 60.0
STREAM_TOKENS = 120
Describe = Callable[..., Fleet]


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    labels = [{"ray.io/availability-zone": zone, "sage/price-per-hour": "2.5"} for zone in ZONES]
    with RayNodes(labels, cpus=CPUS) as made:
        yield made


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcesses]:
    """A scheduler; Ray has the executors."""
    made = FleetProcesses(tmp_path_factory.mktemp("services"))
    asyncio.run(made.start())
    try:
        yield made
    finally:
        asyncio.run(made.leave())


@pytest.fixture
def describe(services: FleetProcesses, nodes: RayNodes) -> Describe:
    """Two executors each as large as a node, so that no two share one; tests say what they want otherwise."""

    def make(**changed: Any) -> Fleet:
        engine = {"step_base_s": 0.01, "max_running": 8, "mean_output_tokens": ENDLESS.mean_output_tokens}
        group = {"model": "sim", "engine": "simulated", "engine_arguments": engine, "cpus": CPUS, "count": 2}
        return Fleet.model_validate(
            {
                "name": "tests",
                "place": "ray",
                "scheduler": {"address": services.address},
                "groups": {"sim": group | changed},
                "start_timeout_s": 60,
                "drain_timeout_s": 20,
                "ray": {"address": nodes.address},
            }
        )

    return make


@pytest.fixture
async def place(describe: Describe) -> AsyncIterator[RayPlace]:
    """With two executors."""
    made = RayPlace(describe())
    await made.apply(describe())
    yield made
    await made.close()


@pytest.fixture
async def client(services: FleetProcesses) -> AsyncIterator[AsyncClient]:
    async with services.client() as made:
        yield made


@asynccontextmanager
async def under_load(client: AsyncClient) -> AsyncIterator[Tally]:
    """Raises AssertionError where a stream fails or a token of it is lost, doubled or changed."""
    load = Load(client, clients=8, seed=1)
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="load")
        await eventually(lambda: load.tally.finished >= 8, within_s=30, what="load")
        yield load.tally
        load.stop()
    assert load.tally.accepted == load.tally.finished + load.tally.cancelled
    assert not load.tally.refused


@asynccontextmanager
async def undisturbed(client: AsyncClient) -> AsyncIterator[None]:
    """Streams of one priority.  Raises AssertionError where one fails, is cut short or is placed twice."""
    ended: list[Completion] = []

    async def run() -> None:
        while True:
            ended.append(await client.generate("once upon a time", max_tokens=STREAM_TOKENS, ignore_eos=True).result())

    streams = [asyncio.create_task(run()) for _ in range(6)]
    await eventually(lambda: len(ended) >= 6, within_s=30, what="load")
    yield
    for stream in streams:
        stream.cancel()
    ends = await asyncio.gather(*streams, return_exceptions=True)
    assert [each for each in ends if not isinstance(each, asyncio.CancelledError)] == []
    assert {len(each.token_ids) for each in ended} == {STREAM_TOKENS}
    assert {len(each.decisions) for each in ended} == {1}


async def test_executors_run_one_on_each_node_and_tell_its_zone_and_price(
    place: RayPlace, client: AsyncClient, nodes: RayNodes, describe: Describe
) -> None:
    status = await place.status()
    executors = status.groups["sim"].executors
    assert [(each.name, each.state) for each in executors] == [("sim-1", "running"), ("sim-2", "running")]
    assert len({each.where for each in executors}) == 2
    view = await client.list_instances()
    assert len({each.location.zone for each in view.instances} & set(ZONES)) == 2
    assert {each.price_per_hour for each in view.instances} == {2.5}
    await place.apply(describe())
    assert await place.status() == status


async def test_an_executor_that_is_killed_under_load_is_started_again_by_ray(
    place: RayPlace, client: AsyncClient, nodes: RayNodes
) -> None:
    async with under_load(client) as tally:
        [victim] = nodes.executors()["sim-1"]
        victim.kill()

        async def again() -> bool:
            [one, _] = (await place.status()).groups["sim"].executors
            return one.restarts == 1 and (await client.get_instance("sim-1")).state is InstanceState.READY

        await eventually(again, within_s=AGAIN_WITHIN_S, what="sim-1 to be back", every_s=0.2)
    assert tally.continued


async def test_executors_that_are_too_many_are_drained_under_load_and_no_stream_is_restarted(
    place: RayPlace, client: AsyncClient, describe: Describe
) -> None:
    between = describe(count=None, min=1, max=2)
    await place.apply(between)
    async with undisturbed(client):
        await place.scale("sim", 1)
        await place.scale("sim", 1)

        async def alone() -> bool:
            return [each.name for each in (await place.status()).groups["sim"].executors] == ["sim-1"]

        await eventually(alone, within_s=AGAIN_WITHIN_S, what="sim-2 to have drained", every_s=0.2)
        await place.apply(between)
        assert await alone(), "an applied group keeps the number that it was scaled to"
        await place.scale("sim", 2)

        async def two() -> bool:
            return (await client.get_instance("sim-2")).state is InstanceState.READY

        await eventually(two, within_s=AGAIN_WITHIN_S, what="sim-2 to be back", every_s=0.2)


async def test_another_specification_replaces_all_executors_under_load_and_no_stream_is_restarted(
    place: RayPlace, client: AsyncClient, describe: Describe
) -> None:
    before = (await place.status()).groups["sim"].version
    engine = {"step_base_s": 0.01, "max_running": 6, "mean_output_tokens": ENDLESS.mean_output_tokens}
    async with undisturbed(client):
        await place.apply(describe(engine_arguments=engine))
    group = (await place.status()).groups["sim"]
    assert group.version != before
    assert len(group.executors) == 2
    for each in group.executors:
        assert (await client.get_instance(each.name)).max_running == 6


async def test_the_raylet_of_an_executor_is_killed_under_load_and_the_executor_comes_back_on_another_node(
    place: RayPlace, client: AsyncClient, nodes: RayNodes
) -> None:
    executors = (await place.status()).groups["sim"].executors
    struck = next(each for each in executors if not nodes.is_head(each.where))
    processes = nodes.executors()[struck.name]
    async with under_load(client) as tally:
        nodes.kill(struck.where)

        async def elsewhere() -> bool:
            found = {each.name: each for each in (await place.status()).groups["sim"].executors}[struck.name]
            moved = found.state == "running" and found.where not in ("", struck.where)
            return moved and (await client.get_instance(struck.name)).state is InstanceState.READY

        await eventually(elsewhere, within_s=AGAIN_WITHIN_S, what=f"{struck.name} on another node", every_s=0.2)
    assert tally.continued
    await eventually(lambda: not nodes.alive(processes), within_s=15, what="the dead node's executor to end")


async def test_a_deleted_fleet_leaves_nothing(place: RayPlace, nodes: RayNodes) -> None:
    await place.delete()
    await place.delete()
    assert not (await place.status()).running
    assert nodes.executors() == {}
