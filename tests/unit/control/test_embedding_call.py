"""A call whose inputs are embedded."""

from __future__ import annotations

import asyncio

from scheduler_svc.control.requests.embedding_call import EmbeddingCall
from scheduler_svc.control.requests.kept_ends import SETTLES_S
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.request import Embedding
from tests.unit.control.world import World


async def test_its_ends_are_kept_no_longer_than_its_client_needs_to_read_them() -> None:
    async with World(adopts=True) as world:
        executor = world.add("a", role=InstanceRole.EMBEDDING)
        inputs = [world.submission(f"call/{place}", embedding=Embedding()) for place in range(3)]
        call = asyncio.create_task(EmbeddingCall(world.plane.intake, inputs).run(lambda live: None))
        await world.advance(SETTLES_S / 2)
        assert len(await call) == 3
        assert executor.held, "the client may not have read them"
        await world.advance(SETTLES_S)
        assert not executor.held
