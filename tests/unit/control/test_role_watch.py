"""Roles that change with the load, on the virtual clock: streams go on, pins and restarts are heeded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sage_telemetry.catalogue import ROLE_CHANGES, ROLE_PRESSURE
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.roles.kept_roles import KeptRoles
from scheduler_svc.control.roles.role_watch import RoleWatch
from scheduler_svc.control.scaling.scaling_watch import RETURN_S
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.role_change import Cause
from scheduler_svc.telemetry.fleet import FleetReader
from scheduler_svc.telemetry.roles import RoleReader
from tests.contract.policies.modelled_fleet import press
from tests.unit.control.handoff_world import PdWorld
from tests.unit.control.world import MODEL, expected

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING
QUICK = {"enabled": True, "interval_s": 0.5, "delay_s": 2.0, "cooldown_s": 2.0, "back_s": 4.0}


@asynccontextmanager
async def fleet(prefills: int = 1, decodes: int = 3, **roles: Any) -> AsyncIterator[PdWorld]:
    """Bring up a fleet whose roles are automatic, with its pairs warmed up and executors' time to come back over."""
    async with PdWorld(automatic_roles={**QUICK, **roles}) as world:
        for n in range(prefills):
            world.add_pd(f"p{n}", PREFILLING)
        for n in range(decodes):
            world.add_pd(f"d{n}", DECODING)
        await world.ready()
        await world.advance(RETURN_S)
        watching = asyncio.create_task(world.plane.roles.run())
        try:
            yield world
        finally:
            watching.cancel()


async def pressed(world: PdWorld, side: InstanceRole, seconds: float) -> None:
    """Have recent requests use much of the targets that this side answers for, all the time."""
    for _ in range(round(seconds * 2)):
        shares = {"prefill": 0.6} if side is PREFILLING else {"decode": 1.2}
        press(world.plane.scheduler, world.clock.now(), **shares)
        await world.advance(0.5)


def roles(world: PdWorld) -> dict[str, InstanceRole]:
    return {each.instance_id: each.role for each in world.plane.scheduler.instances()}


async def test_an_instance_changes_sides_and_back_and_no_stream_is_lost() -> None:
    async with fleet() as world:
        readers = [await world.submit(f"r{n}", prompt=100, max_tokens=400) for n in range(3)]
        await pressed(world, PREFILLING, 3.0)
        (changed,) = [name for name, role in roles(world).items() if name[0] == "d" and role is PREFILLING]
        change = world.plane.scheduler.instance(changed).role_change
        assert change is not None
        assert (change.before, change.role, change.cause) == (DECODING, PREFILLING, Cause.PREFILL_PRESSED)
        assert change.reason.startswith("prefill is pressed, ")
        assert world.plane.roles.changes == {(MODEL, PREFILLING, Cause.PREFILL_PRESSED): 1}
        await world.advance(40.0)
        assert [each.token_ids for each in readers] == [expected(400)] * 3
        await pressed(world, DECODING, 90.0)
        assert sum(role is DECODING for role in roles(world).values()) == 3
        after = await world.submit("after", prompt=100)
        await world.advance(2.0)
        assert after.token_ids == expected(20)
        world.assert_all_room_is_free()


async def test_new_pairs_are_warmed_up_and_used() -> None:
    async with fleet() as world:
        await pressed(world, PREFILLING, 4.0)
        (changed,) = [name for name, role in roles(world).items() if name[0] == "d" and role is PREFILLING]
        pairs = {p.decode.instance_id for p in world.plane.scheduler.pairs() if p.prefill.instance_id == changed}
        assert pairs == {"d0", "d1", "d2"} - {changed}
        assert all(pair.state.value == "usable" for pair in world.plane.scheduler.pairs())


async def test_a_role_given_by_hand_stays_until_it_is_taken_back() -> None:
    async with fleet(decodes=2) as world:
        for name in ("d0", "d1"):
            world.plane.decisions.set_role(name, DECODING)
        await pressed(world, PREFILLING, 5.0)
        assert PREFILLING not in {roles(world)[name] for name in ("d0", "d1")}
        world.plane.decisions.set_role("d1", None)
        await pressed(world, PREFILLING, 5.0)
        assert roles(world)["d1"] is PREFILLING


async def test_a_role_given_by_hand_ends_the_automatic_one() -> None:
    async with fleet() as world:
        await pressed(world, PREFILLING, 3.0)
        (changed,) = [name for name, role in roles(world).items() if name[0] == "d" and role is PREFILLING]
        world.plane.scheduler.set_role(changed, DECODING)
        assert world.plane.scheduler.instance(changed).role_change is None


async def test_a_side_that_is_lost_gets_an_instance_of_the_other_and_never_its_last() -> None:
    async with fleet(prefills=1, decodes=2) as world:
        world.executors["p0"].crash()
        await world.advance(15.0)
        left = {name: role for name, role in roles(world).items() if name in ("d0", "d1")}
        assert sorted(role.value for role in left.values()) == ["decoding", "prefilling"]
        (prefiller,) = [name for name, role in left.items() if role is PREFILLING]
        world.executors[prefiller].crash()
        await world.advance(15.0)
        assert [role for name, role in roles(world).items() if name in left and name != prefiller] == [DECODING]
        whole = await world.submit("whole", prompt=100)
        await world.advance(2.0)
        assert whole.token_ids == expected(20)


async def test_a_changed_role_outlives_a_blip() -> None:
    async with fleet() as world:
        await pressed(world, PREFILLING, 3.0)
        (changed,) = [name for name, role in roles(world).items() if name[0] == "d" and role is PREFILLING]
        world.executors[changed].disconnect()
        await world.advance(0.3)
        world.executors[changed].connect()
        await world.advance(0.3)
        assert roles(world)[changed] is PREFILLING
        assert world.plane.scheduler.instance(changed).role_change is not None


async def test_a_side_gets_back_what_only_a_former_instance_of_it_can_serve() -> None:
    """Other decode instances are READY, so that the side is not empty; the requests would wait for ever."""
    async with fleet(prefills=2, decodes=1, back_s=1_000.0) as world:
        sql = frozenset({"sql"})
        for name in ("d1", "d2"):
            world.add_pd(name, DECODING, adapters=sql)
        await world.advance(1.0)
        for name in ("d0", "d2"):
            world.plane.decisions.set_role(name, DECODING)
        await pressed(world, PREFILLING, 3.0)
        assert roles(world)["d1"] is PREFILLING
        world.plane.decisions.set_role("d0", None)
        world.executors["d2"].crash()
        waits = await world.submit("waits", prompt=100, adapter="sql", wait_for_instance=True)
        await world.advance(4.0)
        assert roles(world)["d1"] is DECODING
        change = world.plane.scheduler.instance("d1").role_change
        assert change is not None
        assert change.reason == "no other decoding instance that is ready serves all that it serves"
        assert world.plane.roles.changes[MODEL, DECODING, Cause.DECODE_UNABLE] == 1
        assert waits.token_ids == expected(20)
        await pressed(world, PREFILLING, 5.0)
        assert roles(world)["d1"] is DECODING, "nobody could take its place"


async def test_changed_roles_go_home_when_splitting_is_switched_off() -> None:
    async with fleet() as world:
        await pressed(world, PREFILLING, 3.0)
        (changed,) = [name for name, role in roles(world).items() if name[0] == "d" and role is PREFILLING]
        world.plane.scheduler.set_pd(PdSettings(mode=SplitMode.NEVER))
        await world.advance(1.0)
        assert roles(world)[changed] is DECODING
        assert world.plane.roles.changes[MODEL, DECODING, Cause.SPLITTING_OFF] == 1
        kept = world.executors[changed].kept_role
        assert kept is not None
        assert kept.role is DECODING
        world.plane.scheduler.set_pd(PdSettings(mode=SplitMode.ALWAYS))
        await pressed(world, PREFILLING, 3.5)
        assert sorted(roles(world).values(), key=str).count(PREFILLING) == 2, "the pauses do not count the way home"


async def test_a_role_given_by_hand_stays_when_splitting_is_switched_off() -> None:
    async with fleet() as world:
        world.plane.decisions.set_role("d0", PREFILLING)
        world.plane.scheduler.set_role("d0", PREFILLING)
        world.plane.scheduler.set_pd(PdSettings(mode=SplitMode.NEVER))
        await world.advance(2.0)
        assert roles(world)["d0"] is PREFILLING


async def test_nothing_changes_while_splitting_is_off_or_roles_are_not_automatic() -> None:
    async with fleet() as world:
        world.plane.scheduler.set_pd(PdSettings(mode=SplitMode.NEVER))
        await pressed(world, PREFILLING, 5.0)
        assert not world.plane.roles.changes
    async with fleet(enabled=False) as world:
        await world.plane.roles.run()
        await pressed(world, PREFILLING, 5.0)
        assert not world.plane.roles.changes


async def test_it_waits_for_executors_to_come_back() -> None:
    """The side whose executors come back last is not empty."""
    async with fleet() as world:
        plane, open_until = world.plane, world.clock.now() + 5.0
        watch = RoleWatch(
            plane.scheduler,
            world.clock,
            plane.decisions,
            KeptRoles(plane.scheduler, world.clock, ExecutorLinks(), plane.decisions),
            plane.wakeup,
            recovering=lambda: world.clock.now() < open_until,
            first_look_at=world.clock.now() + 1.0,
        )
        looks: list[float] = []
        watch.look = lambda: looks.append(world.clock.now())  # type: ignore[method-assign]
        task = asyncio.create_task(watch.run())
        await world.advance(6.0)
        task.cancel()
        assert looks[0] >= open_until


async def test_metrics_tell_the_pressures_and_the_changes_by_cause() -> None:
    async with fleet() as world:
        await pressed(world, PREFILLING, 3.0)
        plane = world.plane
        reader = FleetReader(
            plane.scheduler, plane.clock, plane.requests, roles=RoleReader(plane.roles, plane.scheduler)
        )
        values = reader.read()
        assert [labels for labels, _ in values[ROLE_PRESSURE]] == [(MODEL, "prefill"), (MODEL, "decode")]
        assert values[ROLE_CHANGES] == [((MODEL, "prefilling", "prefill_pressed"), 1)]
