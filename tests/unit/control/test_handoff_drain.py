"""Drains while a handoff is under way: an instance is drained when nothing that was promised there is left."""

from __future__ import annotations

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from tests.unit.control.handoff_world import LEASE_S, PREFILL_S, PULL_S, PdExecutor, PdWorld
from tests.unit.control.world import expected


async def pair(world: PdWorld) -> tuple[PdExecutor, PdExecutor]:
    p, d = world.add_pd("p", InstanceRole.PREFILLING), world.add_pd("d", InstanceRole.DECODING)
    await world.ready()
    return p, d


async def test_a_decode_side_that_drains_while_prefill_runs_for_it_finishes_what_it_was_promised() -> None:
    async with PdWorld() as world:
        _, d = await pair(world)
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S / 2)
        world.plane.instances.orders.drain("d", "maintenance", by_operator=True)
        assert world.state("d") is InstanceState.DRAINING
        await world.advance(PREFILL_S + PULL_S)
        assert world.state("d") is InstanceState.DRAINING
        assert d.log == ["decoding r1"]
        await world.advance(1)
        assert reader.token_ids == expected(20)
        assert reader.live.attempts == 1
        assert world.state("d") is InstanceState.DRAINED
        world.assert_all_room_is_free()


async def test_a_decode_side_is_drained_once_the_request_it_was_kept_for_is_cancelled() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        p.hung = True
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S / 2)
        world.plane.instances.orders.drain("d", "maintenance", by_operator=True)
        assert world.state("d") is InstanceState.DRAINING
        await reader.go_away()
        await world.advance(0.2)
        assert world.state("d") is InstanceState.DRAINED


async def test_a_prefill_side_is_not_drained_while_its_blocks_wait_to_be_fetched() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        d.hears_late_s = 1.0
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S / 2)
        world.plane.instances.orders.drain("p", "maintenance", by_operator=True)
        await world.advance(0.9)
        assert p.pinned
        assert world.state("p") is InstanceState.DRAINING
        await world.advance(1)
        assert world.state("p") is InstanceState.DRAINED
        assert reader.token_ids == expected(20)
        assert p.log == ["prefilling r1"]


async def test_a_prefill_side_is_drained_when_the_lease_of_what_nobody_fetches_ends() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        await world.submit("r1", prompt=100)
        d.hears_late_s = 60.0
        await world.advance(PREFILL_S + 0.01)
        d.crash()
        world.plane.instances.orders.drain("p", "maintenance", by_operator=True)
        await world.advance(LEASE_S - 0.5)
        assert world.state("p") is InstanceState.DRAINING
        await world.advance(5)
        assert world.state("p") is InstanceState.DRAINED
        assert not p.pinned or min(p.pinned.values()) <= world.clock.now()


async def test_what_a_draining_executor_turns_away_goes_on_elsewhere_and_is_not_held_against_it() -> None:
    """Its own wish to leave may still be on the way when it turns away what crossed with it."""
    async with PdWorld() as world:
        _, d = await pair(world)
        world.add_pd("e", InstanceRole.DECODING)
        world.add("g")
        await world.advance(1)
        d.refuses = "draining"
        readers = [await world.submit(f"r{n}", prompt=100) for n in range(8)]
        await world.advance(5)
        assert all(reader.token_ids == expected(20) for reader in readers)
        assert any(reader.live.attempts > 1 for reader in readers)
        assert world.state("d") is InstanceState.DRAINED
        world.assert_all_room_is_free()


async def test_a_warm_up_that_is_never_confirmed_does_not_hold_a_drain_back() -> None:
    async with PdWorld() as world:
        prefill = world.add_pd("p", InstanceRole.PREFILLING)
        world.add_pd("d", InstanceRole.DECODING)
        prefill.hung = True
        await world.advance(0.15)
        assert world.plane.attempts.on_instance("p")

        world.plane.instances.orders.drain("p", "test", by_operator=True)

        assert world.state("p") is InstanceState.DRAINED
