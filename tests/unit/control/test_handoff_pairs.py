"""What pairs of instances have proved, over blips, drains, new engines and splitting that is switched off."""

from __future__ import annotations

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.pairs import Pair, PairState
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.transport import prefill_decode
from tests.unit.control.handoff_world import PREFILL_S, PdExecutor, PdWorld
from tests.unit.control.world import expected

NEVER, ALWAYS = PdSettings(mode=SplitMode.NEVER), PdSettings(mode=SplitMode.ALWAYS)
CHECKED_S = 0.15  # the pairs were looked at in that time


async def pair(world: PdWorld) -> tuple[PdExecutor, PdExecutor]:
    p, d = world.add_pd("p", InstanceRole.PREFILLING), world.add_pd("d", InstanceRole.DECODING)
    await world.ready()
    return p, d


def only(world: PdWorld) -> Pair:
    (found,) = world.plane.scheduler.pairs()
    return found


async def test_a_blip_leaves_what_a_pair_has_proved() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        proved = only(world)
        d.disconnect()
        await world.advance(CHECKED_S)
        assert world.state("d") is InstanceState.SUSPECT
        assert only(world) is proved
        assert world.plane.scheduler.pd_conditions() == ["no instance of 'm' that takes decode legs is ready"]
        d.connect()
        reader = await world.submit("r1", prompt=100)
        await world.advance(1)
        assert reader.token_ids == expected(20)
        assert p.log == ["prefilling r1"], "split at once, without a new warm-up"


async def test_a_pair_whose_prefill_side_is_away_does_not_count_as_one_that_can_hand_over() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        world.add_pd("q", InstanceRole.PREFILLING, unreachable=True)
        await world.advance(1)
        assert not world.plane.scheduler.pd_conditions()
        p.disconnect()
        await world.advance(CHECKED_S)
        (condition,) = world.plane.scheduler.pd_conditions()
        assert condition.startswith("no pair of 'm' can hand over (q to d: ")


async def test_a_blip_leaves_a_failed_pair_its_back_off() -> None:
    async with PdWorld() as world:
        world.add_pd("p", InstanceRole.PREFILLING, unreachable=True)
        d = world.add_pd("d", InstanceRole.DECODING)
        await world.advance(10)
        failures = only(world).failures
        assert failures > 1
        d.disconnect()
        await world.advance(CHECKED_S)
        d.connect()
        await world.advance(CHECKED_S)
        assert (only(world).state, only(world).failures) == (PairState.FAILED, failures)


async def test_a_drain_leaves_what_a_pair_has_proved_and_tries_nothing() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        proved = only(world)
        world.plane.instances.orders.drain("p", "maintenance", by_operator=True)
        await world.advance(CHECKED_S)
        assert world.state("p") is InstanceState.DRAINED
        world.plane.instances.orders.resume("p")
        await world.advance(CHECKED_S)
        assert only(world) is proved
        assert p.log == []


async def test_an_instance_that_drains_before_its_pair_is_tried_is_left_alone() -> None:
    async with PdWorld() as world:
        p = world.add_pd("p", InstanceRole.PREFILLING)
        world.plane.instances.orders.drain("p", "maintenance", by_operator=True)
        d = world.add_pd("d", InstanceRole.DECODING)
        await world.advance(1)
        assert only(world).state is PairState.UNTRIED
        assert p.log == d.log == []
        world.plane.instances.orders.resume("p")
        await world.advance(1)
        assert only(world).state is PairState.USABLE


async def test_a_new_engine_proves_itself_though_it_came_while_splitting_was_off() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        world.plane.scheduler.set_pd(NEVER)
        p.crash()
        await world.advance(1)
        assert not prefill_decode.state(world.plane.scheduler, world.clock.now()).pairs
        p.restart()
        await world.advance(CHECKED_S)
        p.log.clear()
        world.plane.scheduler.set_pd(ALWAYS)
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S / 4)
        assert "prefilling r1" not in p.log, "nothing proved yet"
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert only(world).prefill.engine_start_id == p.start_id
        assert only(world).state is PairState.USABLE


async def test_splitting_that_is_switched_off_for_a_while_needs_no_new_proof() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        world.plane.scheduler.set_pd(NEVER)
        await world.advance(1)
        world.plane.scheduler.set_pd(ALWAYS)
        await world.submit("r1", prompt=100)
        await world.advance(1)
        assert p.log == ["prefilling r1"]


async def test_who_went_while_splitting_was_off_is_no_pair_when_it_is_on_again() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        world.plane.scheduler.set_pd(NEVER)
        p.crash()
        await world.advance(10)
        world.plane.scheduler.set_pd(ALWAYS)
        assert not world.plane.scheduler.pairs()


async def test_two_engines_have_one_warm_up_at_a_time_however_often_one_end_is_away() -> None:
    async with PdWorld() as world:
        prefill, decode = world.add_pd("p", InstanceRole.PREFILLING), world.add_pd("d", InstanceRole.DECODING)
        prefill.hung = True
        await world.advance(0.15)
        for _ in range(4):
            decode.silent = True
            await world.advance(3.0)
            decode.silent = False
            await world.advance(0.9)
            assert len(world.plane.attempts.on_instance("p")) == 1
