"""A model whose last instance was taken away for good is forgotten with it, and nobody is told of it any more."""

from __future__ import annotations

from sage_telemetry.catalogue import INSTANCES
from scheduler_svc.telemetry.fleet import FleetReader
from tests.unit.control.world import MODEL, World


def models_told_of(world: World) -> set[str]:
    plane = world.plane
    return {labels[0] for labels, _ in FleetReader(plane.scheduler, plane.clock, plane.requests).read()[INSTANCES]}


async def test_a_model_without_instances_is_told_of_until_its_last_one_is_forgotten() -> None:
    async with World(instance={"forget_after_s": 20.0}) as world:
        world.add("a").crash()
        await world.advance(15)
        assert models_told_of(world) == {MODEL}
        await world.advance(15)
        assert models_told_of(world) == set()


async def test_a_model_that_the_configuration_names_is_told_of_for_good() -> None:
    async with World(instance={"forget_after_s": 20.0}, models={MODEL: {}}) as world:
        world.add("a").crash()
        await world.advance(60)
        assert world.plane.scheduler.find_instance("a") is None
        assert models_told_of(world) == {MODEL}


async def test_it_is_told_of_again_once_an_instance_comes_back() -> None:
    async with World(instance={"forget_after_s": 5.0}) as world:
        a = world.add("a")
        a.crash()
        await world.advance(15)
        a.restart()
        assert models_told_of(world) == {MODEL}
