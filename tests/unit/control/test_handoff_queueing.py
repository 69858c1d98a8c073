"""Who waits for whom where whole requests and split ones share a queue."""

from __future__ import annotations

from scheduler_svc.domain.instance_spec import InstanceRole
from tests.unit.control.handoff_world import PdWorld
from tests.unit.control.world import expected


async def test_a_long_prompt_does_not_wait_behind_short_ones_for_an_instance_it_does_not_need() -> None:
    async with PdWorld(pd_separation={"enabled": True, "routing_policy": "threshold"}) as world:
        g = world.add("g")
        world.add_pd("p", InstanceRole.PREFILLING)
        world.add_pd("d", InstanceRole.DECODING)
        await world.ready()
        fills = [await world.submit(f"fills-{n}", max_tokens=400) for n in range(g.max_running + 1)]
        await world.advance(0.1)
        short = await world.submit("short")
        await world.advance(0.1)
        long = await world.submit("long", prompt=3000)
        await world.advance(1)
        assert long.token_ids == expected(20)
        assert long.instances == ["d"]
        assert not short.events, "no slot is free on g yet"
        await world.advance(20)
        assert short.token_ids == expected(20)
        assert {instance for reader in (short, *fills) for instance in reader.instances} == {"g"}
        world.assert_all_room_is_free()
