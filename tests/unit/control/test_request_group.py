"""Several requests of one call."""

from __future__ import annotations

import asyncio

from scheduler_svc.control.requests.kept_ends import SETTLES_S
from scheduler_svc.control.requests.request_group import RequestGroup
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.request import Embedding
from tests.unit.control.world import World


async def test_its_ends_are_kept_no_longer_than_its_client_needs_to_read_them() -> None:
    async with World(adopts=True) as world:
        executor = world.add("a", role=InstanceRole.EMBEDDING)
        inputs = [world.submission(f"call/{place}", embedding=Embedding()) for place in range(3)]
        group = RequestGroup(world.plane.intake, inputs)
        call = asyncio.create_task(group.run())
        await world.advance(SETTLES_S / 2)
        group.settle(await call)
        assert executor.held, "the client may not have read them"
        await world.advance(SETTLES_S)
        assert not executor.held
