"""What the Ray place does with actors, on a cluster in memory."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from sage_fleet.errors import FleetError
from sage_fleet.places.versions import group_version
from sage_fleet.ray_place import place as place_module
from sage_fleet.ray_place.actor_name import ActorName
from sage_fleet.ray_place.place import RayPlace
from sage_fleet.specification.fleet import Fleet
from tests.support.memory_ray_cluster import MemoryCluster


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "POLL_S", 0.0)


def fleet(*, model: str = "a", groups: dict[str, Any] | None = None, **changed: Any) -> Fleet:
    group = {"model": model, "engine": "simulated"}
    return Fleet.model_validate({"place": "ray", "groups": groups or {"g": group | changed}})


def place_on(cluster: MemoryCluster, described: Fleet) -> RayPlace:
    return RayPlace(described, cluster=cluster, instances=cluster)


async def test_apply_creates_what_is_missing_and_a_second_time_nothing() -> None:
    cluster = MemoryCluster(room=4)
    await place_on(cluster, fleet(count=2)).apply(fleet(count=2))
    assert cluster.steps == ["create g-1", "create g-2"]
    await place_on(cluster, fleet(count=2)).apply(fleet(count=2))
    assert len(cluster.steps) == 2


async def test_an_executor_gets_the_settings_of_its_group_its_id_and_the_scheduler() -> None:
    cluster = MemoryCluster(room=1)
    await place_on(cluster, fleet()).apply(fleet())
    [start] = cluster.started.values()
    assert start.environment["SAGE_EXECUTOR_INSTANCE_ID"] == "g-1"
    assert start.environment["SAGE_EXECUTOR_SCHEDULER"] == "127.0.0.1:50051"
    assert start.environment["SAGE_EXECUTOR_ENGINE__KIND"] == "simulated"
    assert start.drain_timeout_s == 60.0


async def test_of_another_specification_the_new_one_serves_before_an_old_one_leaves_where_there_is_room() -> None:
    cluster = MemoryCluster(room=3)
    await place_on(cluster, fleet(count=2)).apply(fleet(count=2))
    cluster.steps.clear()
    await place_on(cluster, fleet(model="b", count=2)).apply(fleet(model="b", count=2))
    creates = [index for index, step in enumerate(cluster.steps) if step.startswith("create")]
    leaves = [index for index, step in enumerate(cluster.steps) if step.startswith("leave")]
    assert len(creates) == len(leaves) == 2
    assert all(create < leave for create, leave in zip(creates, leaves, strict=True))
    assert {name.version for name in cluster.records} == {group_version(fleet(model="b", count=2), "g")}


async def test_of_another_specification_an_old_one_makes_room_where_there_is_none() -> None:
    cluster = MemoryCluster(room=1)
    await place_on(cluster, fleet()).apply(fleet())
    cluster.steps.clear()
    await place_on(cluster, fleet(model="b")).apply(fleet(model="b"))
    assert cluster.steps == ["leave g-1", "create g-1"]


@pytest.mark.parametrize(
    "changed", [{"ray": {"max_restarts": 3}}, {"scheduler": {"address": "10.0.0.5:1", "insecure": True}}]
)
async def test_what_an_actor_keeps_from_its_creation_makes_another_version(changed: dict[str, Any]) -> None:
    described = fleet().model_dump() | changed
    assert group_version(Fleet.model_validate(described), "g") != group_version(fleet(), "g")


async def test_groups_that_are_described_no_more_leave() -> None:
    cluster = MemoryCluster(room=4)
    both = fleet(groups={name: {"model": "a", "engine": "simulated"} for name in ("g", "h")})
    await place_on(cluster, both).apply(both)
    await place_on(cluster, fleet()).apply(fleet())
    assert [name.group for name in cluster.records] == ["g"]
    assert "leave h-1" in cluster.steps


async def test_actors_of_another_fleet_are_left_alone() -> None:
    cluster = MemoryCluster(room=4)
    await place_on(cluster, fleet()).apply(fleet())
    other = fleet().model_copy(update={"name": "other"})
    await place_on(cluster, other).delete()
    assert len(cluster.records) == 1


async def test_an_actor_that_ray_gave_up_is_reported_and_replaced_by_apply() -> None:
    cluster = MemoryCluster(room=1)
    place = place_on(cluster, fleet())
    await place.apply(fleet())
    cluster.die(next(iter(cluster.records)))
    status = await place.status()
    assert [each.state for each in status.groups["g"].executors] == ["ended"]
    assert "g-1 has died too often" in status.problems[0]
    await place.apply(fleet())
    assert cluster.steps[-2:] == ["remove g-1", "create g-1"]


async def test_what_finds_no_node_is_reported_and_ends_apply_with_the_group_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster = MemoryCluster(room=1)
    described = fleet(count=2).model_copy(update={"start_timeout_s": 0.001, "drain_timeout_s": 0.0})
    monkeypatch.setattr(place_module, "STOP_MARGIN_S", 0.0)
    monkeypatch.setattr(place_module, "REMOVE_TIMEOUT_S", 0.0)
    place = place_on(cluster, described)
    with pytest.raises(FleetError, match="group g has 1 of 2 executors READY"):
        await place.apply(described)
    assert (await place.status()).problems == ("g-2 waits: no node has room for it",)


async def test_a_scaled_group_keeps_its_number_when_it_is_applied_again() -> None:
    cluster = MemoryCluster(room=9)
    place = place_on(cluster, fleet(min=1, max=3))
    await place.apply(fleet(min=1, max=3))
    await place.scale("g", 3)
    await place.apply(fleet(min=1, max=3))
    assert len(cluster.records) == 3
    await place.scale("g", 1)
    assert cluster.steps[-2:] == ["leave g-2", "leave g-3"]


async def test_those_that_are_to_go_first_go_first() -> None:
    cluster = MemoryCluster(room=9)
    place = place_on(cluster, fleet(min=1, max=3))
    await place.apply(fleet(min=1, max=3))
    await place.scale("g", 3)
    await place.scale("g", 2, ["other-1", "g-2", "g-3"])
    assert cluster.steps[-1] == "leave g-2"


async def test_a_group_with_a_fixed_number_is_scaled_until_the_next_apply() -> None:
    cluster = MemoryCluster(room=9)
    place = place_on(cluster, fleet(count=2))
    await place.apply(fleet(count=2))
    await place.scale("g", 3)
    assert (await place.status()).groups["g"].wanted == 3
    await place.apply(fleet(count=2))
    assert (await place.status()).groups["g"].wanted == 2


async def test_a_group_that_was_scaled_to_zero_is_reported_and_scaled_up_again() -> None:
    cluster = MemoryCluster(room=9)
    place = place_on(cluster, fleet(min=0, max=3))
    await place.apply(fleet(min=0, max=3))
    assert (await place.status()).groups["g"].wanted == 0
    await place.scale("g", 2)
    assert (await place.status()).groups["g"].wanted == 2


@pytest.mark.parametrize(
    ("group", "count", "says"), [("x", 1, "groups.x: there is no such group"), ("g", 4, "4 is not between 1 and 3")]
)
async def test_a_scale_that_cannot_be_is_refused(group: str, count: int, says: str) -> None:
    with pytest.raises(FleetError, match=says):
        await place_on(MemoryCluster(room=9), fleet(min=1, max=3)).scale(group, count)


async def test_a_group_of_another_specification_is_not_scaled() -> None:
    cluster = MemoryCluster(room=9)
    await place_on(cluster, fleet(min=1, max=3)).apply(fleet(min=1, max=3))
    with pytest.raises(FleetError, match="apply this one first"):
        await place_on(cluster, fleet(model="b", min=1, max=3)).scale("g", 2)


async def test_delete_drains_everything_and_may_be_called_again() -> None:
    cluster = MemoryCluster(room=9)
    place = place_on(cluster, fleet(count=2))
    await place.apply(fleet(count=2))
    await place.delete()
    await place.delete()
    assert cluster.steps[-2:] == ["leave g-1", "leave g-2"]
    assert not (await place.status()).running


async def test_an_actor_that_does_not_end_in_time_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = MemoryCluster(room=1)
    place = place_on(cluster, fleet())
    await place.apply(fleet())
    cluster.stuck = True
    seconds = count()
    monkeypatch.setattr(place_module, "_now", lambda: float(next(seconds)))
    await place.delete()
    assert cluster.steps[-1] == "remove g-1"


async def test_a_gateway_is_not_started_and_that_is_reported() -> None:
    described = Fleet.model_validate(fleet().model_dump() | {"gateway": {"address": "127.0.0.1:8000"}})
    place = place_on(MemoryCluster(room=1), described)
    await place.apply(described)
    assert (await place.status()).problems == ("gateway: on Ray it is not started; start it beside the scheduler",)


def test_names_are_read_back_and_those_of_others_are_none() -> None:
    name = ActorName(fleet="f", group="g-1", number=12, version="abc")
    assert ActorName.parse(str(name)) == name
    assert name.instance_id == "g-1-12"
    for other in ("", "e1", "sage/f/g/x/v", "else/f/g/1/v", "sage/f/g/1"):
        assert ActorName.parse(other) is None
