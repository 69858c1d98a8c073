"""Requests that name no model: the only one of their kind is meant."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.request import Embedding
from tests.unit.control.world import World

EMBEDDING = {"embedding": Embedding()}


async def model_of(world: World, **options: object) -> str:
    """Return the model that a request gets which names none."""
    reader = await world.submit("r1", model="", max_tokens=4, **options)
    await world.advance(1)
    return reader.live.request.model


@pytest.mark.parametrize(("options", "meant"), [({}, "writes"), (EMBEDDING, "embeds")])
async def test_the_only_model_of_a_kind_needs_no_name(options: dict[str, object], meant: str) -> None:
    async with World() as world:
        world.add("a", model="writes")
        world.add("b", model="embeds", role=InstanceRole.EMBEDDING)
        assert await model_of(world, **options) == meant


async def test_the_kind_of_a_model_outlives_its_instances() -> None:
    async with World() as world:
        world.add("a", model="writes")
        gone = world.add("b", model="embeds", role=InstanceRole.EMBEDDING)
        await world.advance(1)
        gone.disconnect()
        await world.advance(60)
        assert await model_of(world) == "writes"


@pytest.mark.parametrize(
    ("options", "named"),
    [({}, "that generate: writes, writes-too"), (EMBEDDING, "that embed: embeds, embeds-too")],
)
async def test_of_several_of_a_kind_one_has_to_be_named(options: dict[str, object], named: str) -> None:
    async with World() as world:
        for model, role in (
            ("writes", InstanceRole.GENERAL),
            ("writes-too", InstanceRole.DECODING),
            ("embeds", InstanceRole.EMBEDDING),
            ("embeds-too", InstanceRole.EMBEDDING),
        ):
            world.add(model, model=model, role=role)
        with pytest.raises(InvalidRequest, match=rf"spec\.model: name one of the models {named}$"):
            await model_of(world, **options)


async def test_where_no_model_is_of_the_kind_those_that_are_there_are_named() -> None:
    async with World() as world:
        for model in ("a", "b"):
            world.add(model, model=model)
        with pytest.raises(InvalidRequest, match=r"spec\.model: none of the models that are served embeds: a, b$"):
            await model_of(world, **EMBEDDING)
