"""The desired numbers over time: looked at by the clock, counted, told to who follows them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sage_common.virtual_clock import VirtualClock
from sage_telemetry.catalogue import DESIRED_INSTANCES, SCALING_CHANGES, SCALING_LOAD, WARM_UP
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.scaling import scaling_watch
from scheduler_svc.control.scaling.scaling_watch import RETURN_S, ScalingWatch
from scheduler_svc.domain.errors import LimitReached, Recovering
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.telemetry.fleet import FleetReader
from scheduler_svc.telemetry.scaling import ScalingReader
from tests.unit.control.world import MODEL, World

GENERAL = InstanceRole.GENERAL
ZERO = {MODEL: {"general": {"min": 0, "max": 3}}}


def scaled(**changes: Any) -> World:
    quick = {
        "enabled": True,
        "interval_s": 1.0,
        "up_delay_s": 0.0,
        "down_delay_s": 5.0,
        "warm_up_s": 2.0,
        "idle_s": 10.0,
    }
    return World(scaling={"enabled": True, **quick, **changes})


async def watched(world: World, seconds: float) -> None:
    task = asyncio.create_task(world.plane.scaling.run())
    await world.advance(seconds)
    task.cancel()


async def test_it_looks_once_executors_had_time_to_come_back_and_then_every_interval() -> None:
    """A scheduler that starts anew would else want the minimum while the fleet is on its way back to it."""
    async with scaled() as world:
        world.add("a")
        await watched(world, RETURN_S - 1.5)
        with pytest.raises(Recovering):
            world.plane.scaling.known()
        assert world.plane.scaling.desired == ()
        await watched(world, RETURN_S + 0.5)
        assert world.plane.scaling.known() == world.plane.scaling.desired
        found = world.plane.scaling.find(MODEL, GENERAL)
        assert found is not None
        assert (found.desired, found.ready) == (1, 1)
        assert world.plane.scaling.find(MODEL, InstanceRole.DECODING) is None


async def test_where_it_is_off_nothing_is_desired_and_the_task_ends() -> None:
    async with scaled(enabled=False) as world:
        world.add("a")
        await world.plane.scaling.run()
        assert world.plane.scaling.desired == ()


async def test_it_waits_for_the_instances_that_an_earlier_scheduler_saw_and_no_longer() -> None:
    clock = VirtualClock()
    recovery = Recovery(clock, {"a": EarlierInstance()}, 30.0, epoch=2)
    async with scaled() as world:
        watch = ScalingWatch(
            world.plane.scheduler, clock, dict, recovering=lambda: recovery.open, first_look_at=clock.now()
        )
        task = asyncio.create_task(watch.run())
        await clock.advance(29.0)
        with pytest.raises(Recovering):
            watch.known()
        await clock.advance(3.0)
        assert watch.known() == ()
        task.cancel()


async def test_a_request_that_waits_for_a_declared_model_is_need_and_runs_when_the_instance_is_ready() -> None:
    async with scaled(models=ZERO) as world:
        await watched(world, RETURN_S + 1.5)
        none = world.plane.scaling.find(MODEL, GENERAL)
        assert none is not None
        assert none.desired == 0
        waiting = asyncio.create_task(world.plane.models.resolve(MODEL, wait=True, until=1_000.0))
        await watched(world, RETURN_S + 1.5)
        one = world.plane.scaling.find(MODEL, GENERAL)
        assert one is not None
        assert one.desired == 1
        world.add("a")
        name, _ = await waiting
        assert name == MODEL
        assert world.plane.scaling.changes == {(MODEL, GENERAL, "up"): 1}


async def test_a_model_that_goes_to_zero_stays_known() -> None:
    async with scaled(models=ZERO) as world:
        world.add("a").crash()
        await world.advance(2_000)
        assert world.plane.models.names() == [MODEL]


async def test_followers_are_told_after_each_look_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scaled() as world:
        world.add("a")
        watch = world.plane.scaling
        follower = watch.follow()
        await anext(follower)
        next_look = asyncio.ensure_future(anext(follower))
        await asyncio.sleep(0)
        assert not next_look.done()
        watch.look()
        await next_look
        monkeypatch.setattr(scaling_watch, "MOST_FOLLOWERS", 1)
        with pytest.raises(LimitReached):
            await anext(watch.follow())
        await follower.aclose()
        await anext(watch.follow())


async def test_metrics_tell_the_number_the_load_the_warm_up_and_the_changes() -> None:
    async with scaled() as world:
        world.add("a")
        world.plane.scaling.look()
        plane = world.plane
        reader = FleetReader(plane.scheduler, plane.clock, plane.requests, scaling=ScalingReader(plane.scaling))
        values = reader.read()
        assert values[DESIRED_INSTANCES] == [((MODEL, "general"), 1)]
        assert values[WARM_UP] == [((MODEL, "general"), 2.0)]
        assert [labels for labels, _ in values[SCALING_LOAD]] == [(MODEL, "general", w) for w in ("now", "forecast")]
        assert values[SCALING_CHANGES] == [((MODEL, "general", d), 0) for d in ("up", "down")]
