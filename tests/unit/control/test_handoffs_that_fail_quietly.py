"""Handoffs whose failure shows nowhere in the output: the client's tokens are right, and still it must be known."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from scheduler_svc.control.attempts.decode_leg import RECOMPUTED
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import DeadlineExceeded, InvalidRequest
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.pd.pairs import PairState
from scheduler_svc.domain.request import RequestKey
from tests.unit.control.handoff_world import PREFILL_S, PdExecutor, PdWorld
from tests.unit.control.world import expected


async def pair(world: PdWorld) -> tuple[PdExecutor, PdExecutor]:
    p, d = world.add_pd("p", InstanceRole.PREFILLING), world.add_pd("d", InstanceRole.DECODING)
    await world.ready()
    return p, d


def states(world: PdWorld) -> list[PairState]:
    return [each.state for each in world.plane.scheduler.pairs()]


async def test_a_pair_whose_warm_up_was_computed_at_the_decode_side_cannot_hand_over() -> None:
    async with PdWorld() as world:
        p, d = world.add_pd("p", InstanceRole.PREFILLING), world.add_pd("d", InstanceRole.DECODING)
        p.unreachable = d.recomputes = True
        await world.advance(1.0)
        assert states(world) == [PairState.FAILED]
        assert world.plane.scheduler.pd_conditions() != []
        readers = [await world.submit(f"r{i}", prompt=100) for i in range(4)]
        await world.advance(20)
        assert all(reader.token_ids == expected(20) for reader in readers)
        assert all(reader.live.placements[0].decision.prefill is None for reader in readers)
        assert [each.failures > 1 for each in world.plane.scheduler.pairs()] == [True], "its back-off grows"
        p.unreachable = False
        await world.advance(60)
        assert states(world) == [PairState.USABLE]


async def test_a_prompt_computed_at_the_decode_side_is_known_at_its_first_token_and_is_no_handoff() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        handoff_s = world.plane.scheduler.pairs()[0].handoff_s
        p.unreachable = d.recomputes = True
        reader = await world.submit("long", prompt=100, max_tokens=900)
        await world.advance(0.2)
        assert 0 < len(reader.token_ids) < 900
        assert states(world) == [PairState.FAILED]
        assert world.plane.scheduler.split_counts().fallbacks == 1
        assert [e.detail for e in reader.live.history if e.event == "fallback"] == [f"d: {RECOMPUTED}"]
        after = await world.submit("after", prompt=100)
        await world.advance(20)
        assert after.live.placements[0].decision.prefill is None
        assert reader.token_ids == expected(900)
        assert reader.finished.transfer_s is None
        assert world.plane.scheduler.pairs()[0].handoff_s == handoff_s
        assert world.plane.scheduler.split_counts().fallback_causes[Fallback.RECOMPUTED] == 1


async def test_a_hung_prefill_instance_takes_no_room_at_the_decode_side_from_requests_that_are_over() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        p.hung = True
        gone = await world.submit("gone", prompt=100)
        late = [await world.submit(f"late-{i}", prompt=100, deadline_s=1.0) for i in range(3)]
        await world.advance(0.5)
        account = world.plane.scheduler.instance("d").account
        assert account.kv.reserved_tokens > 0
        world.plane.intake.cancel(RequestKey(tenant="t", request_id="gone"), "enough")
        await world.advance(1.0)
        assert gone.error is not None
        assert all(isinstance(each.error, DeadlineExceeded) for each in late)
        assert account.kv.reserved_tokens == 0
        assert account.live == 0


async def test_a_prefill_instance_that_cannot_serve_a_request_is_not_asked() -> None:
    class Short(PdExecutor):
        def facts(self) -> EngineFacts:
            return replace(super().facts(), max_model_len=64)

    async with PdWorld() as world:
        p = Short(world=world, instance_id="p", role=InstanceRole.PREFILLING)
        world.executors["p"] = p
        p.connect()
        world.add_pd("d", InstanceRole.DECODING)
        await world.ready()
        reader = await world.submit("r1", prompt=100)
        await world.advance(1)
        assert reader.token_ids == expected(20)
        decision = reader.live.placements[0].decision
        assert decision.prefill is None
        assert any("p serves 64 tokens" in reason for reason in decision.reasons), decision.reasons
        assert p.log == []


async def test_what_is_invalid_is_for_the_instance_to_say_that_runs_the_whole_request() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        p.invalid = "adapter"
        served = await world.submit("served", prompt=100)
        await world.advance(1)
        assert served.token_ids == expected(20)
        assert states(world) == [PairState.USABLE]
        d.invalid = "adapter"
        refused = await world.submit("refused", prompt=100)
        await world.advance(1)
        assert isinstance(refused.error, InvalidRequest)


async def test_a_prefill_leg_that_never_arrived_says_nothing_about_its_pair() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        p.lost_assigns = True
        reader = await world.submit("r1", prompt=100)
        await world.advance(0.01)
        p.disconnect()
        p.lost_assigns = False
        await asyncio.sleep(0)
        p.connect()
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert world.plane.scheduler.split_counts().fallback_causes[Fallback.PREFILL_FAILED] == 1
        assert states(world) == [PairState.USABLE]


async def test_a_request_that_ran_whole_after_all_reports_no_transfer() -> None:
    async with PdWorld() as world:
        _, d = await pair(world)
        world.add("g")
        await world.advance(0.5)
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S + 0.005)
        d.crash()
        await world.advance(3)
        assert reader.token_ids == expected(20)
        assert reader.live.placements[-1].decision.phase is Phase.HYBRID
        assert reader.finished.transfer_s is None
        assert reader.finished.prefill_s is not None
