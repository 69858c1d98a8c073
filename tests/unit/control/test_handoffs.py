"""Split requests: prefill here, decode there, one stream for the client; and what happens when any of it fails."""

from __future__ import annotations

import pytest

from scheduler_svc.control.attempts.decode_leg import RECOMPUTED
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.errors import DeadlineExceeded
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.pairs import PairState
from scheduler_svc.domain.request import RequestKey
from tests.unit.control.handoff_world import LEASE_S, PREFILL_S, PdExecutor, PdWorld
from tests.unit.control.world import Reader, expected

PREFILLING, DECODING, HYBRID = InstanceRole.PREFILLING, InstanceRole.DECODING, InstanceRole.HYBRID


def fallbacks(reader: Reader) -> list[str]:
    return [entry.detail for entry in reader.live.history if entry.event == "fallback"]


async def pair(world: PdWorld) -> tuple[PdExecutor, PdExecutor]:
    p, d = world.add_pd("p", PREFILLING), world.add_pd("d", DECODING)
    await world.ready()
    return p, d


async def test_a_split_request_is_one_stream_from_the_decode_leg() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        reader = await world.submit("r1", prompt=100, max_tokens=20)
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert p.log == ["prefilling r1"]
        assert d.log == ["decoding r1"]
        decision = reader.live.placements[0].decision
        assert decision.phase is Phase.DECODING
        assert decision.instance_id == "d"
        assert decision.prefill is not None
        assert decision.prefill.instance_id == "p"
        assert reader.finished.transfer_s is not None
        assert reader.finished.transfer_s > 0
        world.assert_all_room_is_free()


async def test_many_split_requests_share_the_pair() -> None:
    async with PdWorld() as world:
        await pair(world)
        readers = [await world.submit(f"r{i}", prompt=100) for i in range(40)]
        await world.advance(30)
        assert all(reader.token_ids == expected(20) for reader in readers)
        world.assert_all_room_is_free()


async def test_short_prompts_stay_whole_on_the_decode_instance() -> None:
    async with PdWorld(pd_separation={"enabled": True, "routing_policy": "threshold"}) as world:
        p, d = await pair(world)
        short = await world.submit("short", prompt=10)
        long = await world.submit("long", prompt=3000)
        await world.advance(2)
        assert short.token_ids == long.token_ids == expected(20)
        assert p.log == ["prefilling long"]
        assert "assign short" in d.log


async def test_room_is_reserved_at_both_ends_at_once() -> None:
    async with PdWorld() as world:
        await pair(world)
        await world.submit("r1", prompt=100, max_tokens=50)
        await world.advance(PREFILL_S / 2)
        scheduler = world.plane.scheduler
        assert scheduler.instance("p").account.kv.reserved_tokens >= 100
        assert scheduler.instance("d").account.kv.reserved_tokens >= 150


async def test_prefill_room_is_held_until_the_blocks_are_fetched() -> None:
    async with PdWorld() as world:
        await pair(world)
        await world.submit("r1", prompt=100, max_tokens=500)
        account = world.plane.scheduler.instance("p").account
        await world.advance(PREFILL_S + 0.01)
        assert account.kv.reserved_tokens > 0
        assert account.free_slots == account.max_running, "its slot is free all the same"
        await world.advance(0.1)
        assert account.kv.reserved_tokens == 0


async def test_an_unproved_pair_is_not_used_and_that_is_loud() -> None:
    async with PdWorld() as world:
        p = world.add_pd("p", PREFILLING, unreachable=True)
        world.add_pd("d", DECODING)
        await world.advance(1)
        reader = await world.submit("r1", prompt=100)
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert "prefilling r1" not in p.log
        reasons = " ".join(reader.live.placements[0].decision.reasons)
        assert "runs whole" in reasons
        assert world.plane.scheduler.pd_conditions()
        assert world.plane.scheduler.split_counts().fallbacks > 0


async def test_a_failed_pair_is_used_again_once_it_hands_over() -> None:
    async with PdWorld() as world:
        p = world.add_pd("p", PREFILLING, unreachable=True)
        world.add_pd("d", DECODING)
        await world.advance(1)
        (only,) = world.plane.scheduler.pairs()
        assert only.failures
        p.unreachable = False
        await world.advance(10)
        assert only.state is PairState.USABLE
        assert not world.plane.scheduler.pd_conditions()


async def test_prefill_dies_before_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S / 2)
        p.crash()
        await world.advance(3)
        assert reader.token_ids == expected(20)
        assert fallbacks(reader)
        world.assert_all_room_is_free()
        (record,) = [each for each in caplog.records if "computes the prompt itself" in each.message]
        assert reader.live.about.items() <= vars(record).items()


async def test_prefill_dies_while_its_blocks_are_fetched() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S + 0.005)
        p.crash()
        await world.advance(10)
        assert reader.token_ids == expected(20)
        world.assert_all_room_is_free()


async def test_prefill_dies_after_the_transfer_and_nobody_notices() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        reader = await world.submit("r1", prompt=100, max_tokens=100)
        await world.advance(0.3)
        p.crash()
        await world.advance(3)
        assert reader.token_ids == expected(100)
        assert len(reader.instances) == 1
        world.assert_all_room_is_free()


@pytest.mark.parametrize("how", ["refuses", "fails"])
async def test_prefill_that_refuses_or_fails_is_done_by_the_decode_instance(how: str) -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        setattr(p, how, "no")
        reader = await world.submit("r1", prompt=100)
        await world.advance(3)
        assert reader.token_ids == expected(20)
        assert d.log == ["assign r1"]
        assert fallbacks(reader)
        world.assert_all_room_is_free()


async def test_prefill_that_leaves_nothing_behind() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        p.leaves_nothing = True
        reader = await world.submit("r1", prompt=100)
        await world.advance(3)
        assert reader.token_ids == expected(20)
        assert d.log == ["assign r1"]
        world.assert_all_room_is_free()


async def test_decode_dies_mid_stream_and_the_request_resumes_whole() -> None:
    async with PdWorld() as world:
        _, d = await pair(world)
        world.add_pd("d2", DECODING)
        await world.ready()
        reader = await world.submit("r1", prompt=100, max_tokens=200, preferred_instance="d")
        await world.advance(0.5)
        on = reader.live.placements[0].decision.instance_id
        assert 0 < len(reader.token_ids) < 200
        world.executors[on].crash()
        await world.advance(5)
        assert reader.token_ids == expected(200)
        assert reader.live.placements[1].decision.prefill is None
        world.assert_all_room_is_free()
        del d


async def test_decode_dies_while_prefill_runs() -> None:
    async with PdWorld() as world:
        _, d = await pair(world)
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S / 2)
        d.crash()
        await world.advance(0.1)
        world.add_pd("d2", DECODING)
        await world.advance(LEASE_S + 10)
        assert reader.token_ids == expected(20)
        world.assert_all_room_is_free()


async def test_a_decode_leg_that_is_heard_of_after_the_lease_does_not_count() -> None:
    """The executor cannot know: to it the lease begins when it hears of it."""
    async with PdWorld() as world:
        p, d = await pair(world)
        d.hears_late_s = LEASE_S + 1
        reader = await world.submit("r1", prompt=100)
        await world.advance(LEASE_S)
        d.hears_late_s = 0.0
        await world.advance(3)
        assert reader.token_ids == expected(20)
        assert p.log == ["prefilling r1", "prefilling r1"]
        assert "after the lease of its KV" in fallbacks(reader)[0]
        assert world.plane.scheduler.split_counts().fallbacks == 1
        assert [each.state for each in world.plane.scheduler.pairs()] == [PairState.USABLE]
        world.assert_all_room_is_free()


async def test_news_of_prefills_end_that_is_late_leaves_less_of_the_lease() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        p.speaks_late_s = LEASE_S - 0.5
        reader = await world.submit("r1", prompt=100)
        await world.advance(LEASE_S - 0.43)
        p.speaks_late_s = 0.0
        await world.advance(3)
        assert reader.token_ids == expected(20)
        assert [line for line in d.log if "r1" in line] == ["decoding r1", "decoding r1"]
        assert "kv_lease_expired" in fallbacks(reader)[0]
        assert world.plane.scheduler.split_counts().fallbacks == 1
        world.assert_all_room_is_free()


async def test_a_request_whose_lease_ends_first_twice_runs_whole() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        p.speaks_late_s = LEASE_S - 0.5
        reader = await world.submit("r1", prompt=100)
        await world.advance(15)
        assert reader.token_ids == expected(20)
        assert len(fallbacks(reader)) == 2
        assert reader.live.placements[-1].decision.phase is Phase.HYBRID
        world.assert_all_room_is_free()


async def test_only_leases_count_towards_running_whole_and_that_lasts() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        d.lost_assigns = True
        reader = await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S + 0.01)
        d.disconnect()  # the decode leg was lost on the way: the request is placed a second time
        d.lost_assigns = False
        await world.advance(0.1)
        p.speaks_late_s = LEASE_S - 0.5
        d.connect()
        await world.advance(LEASE_S)
        assert fallbacks(reader)[-1].endswith("prefill runs again"), "one lease ended first so far"
        await world.advance(2 * LEASE_S)
        assert fallbacks(reader)[-1].endswith("it runs whole")
        assert reader.token_ids == expected(20)


async def test_a_request_whose_prefill_failed_stays_whole_over_further_failovers() -> None:
    async with PdWorld() as world:
        await pair(world)
        reader = await world.submit("r1", prompt=100)
        reader.live.setbacks.whole = True
        await world.advance(PREFILL_S / 2)
        world.executors["p"].crash()
        world.executors["d"].crash()
        await world.advance(0.5)
        world.executors["p"].restart()
        world.executors["d"].restart()
        await world.advance(5)
        assert reader.token_ids == expected(20)
        assert reader.live.placements[-1].decision.phase is Phase.HYBRID


async def test_a_cancel_that_overtakes_the_engine_has_the_blocks_released() -> None:
    async with PdWorld() as world:
        _, d = await pair(world)
        d.before_engine = True
        await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S + 0.005)
        world.plane.intake.cancel(RequestKey(tenant="t", request_id="r1"), "enough")
        await world.advance(1.9)
        assert any(line.startswith("release_kv p/") for line in d.log)
        world.assert_all_room_is_free()


async def test_a_release_is_sent_only_where_the_engine_tells_nobody() -> None:
    async with PdWorld() as world:
        _, d = await pair(world)
        await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S + 0.005)
        world.plane.intake.cancel(RequestKey(tenant="t", request_id="r1"), "enough")
        await world.advance(1.9)
        assert not any(line.startswith("release_kv") for line in d.log)
        world.assert_all_room_is_free()


async def test_handoffs_that_change_on_their_way_put_the_pair_out_of_use_and_not_the_instance() -> None:
    async with PdWorld() as world:
        _, d = await pair(world)
        d.alters = True
        readers = [await world.submit(f"r{i}", prompt=100) for i in range(8)]
        await world.advance(PREFILL_S + 0.05)
        assert [each.state for each in world.plane.scheduler.pairs()] == [PairState.FAILED]
        assert world.state("d") is InstanceState.READY
        await world.advance(1.9)
        assert all(reader.token_ids == expected(20) for reader in readers)
        assert all(reader.live.placements[-1].decision.phase is Phase.HYBRID for reader in readers)
        assert any("handoff was changed" in reason for reason in readers[0].live.placements[-1].decision.reasons)
        world.assert_all_room_is_free()
        d.alters = False
        await world.advance(10)
        again = await world.submit("again", prompt=100)
        await world.advance(1)
        assert again.live.placements[0].decision.prefill is not None


async def test_a_decode_leg_that_computed_the_prompt_itself_says_so_and_the_pair_is_not_used() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        d.recomputes = True
        p.unreachable = True
        reader = await world.submit("r1", prompt=100)
        await world.advance(1)
        assert reader.token_ids == expected(20)
        assert fallbacks(reader) == [f"d: {RECOMPUTED}"]
        assert world.plane.scheduler.split_counts().fallbacks == 1
        assert [each.reason for each in world.plane.scheduler.pairs()] == [RECOMPUTED]


async def test_what_an_engine_did_is_not_held_against_the_one_that_took_its_place() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        d.recomputes = True
        reader = await world.submit("r1", prompt=100, max_tokens=500)
        await world.advance(PREFILL_S + 0.005)
        p.crash()
        await world.advance(1)
        p.restart()
        await world.advance(10)
        assert fallbacks(reader) == [f"d: {RECOMPUTED}"]
        assert [each.state for each in world.plane.scheduler.pairs()] == [PairState.USABLE]


async def test_decode_dies_before_it_fetched_and_the_lease_frees_the_blocks() -> None:
    async with PdWorld() as world:
        p, d = await pair(world)
        await world.submit("r1", prompt=100)
        await world.advance(PREFILL_S + 0.005)
        assert p.pinned
        d.crash()
        await world.advance(LEASE_S + 2)
        p.expire()
        assert not p.pinned
        assert world.plane.scheduler.instance("p").account.kv.reserved_tokens == 0


@pytest.mark.parametrize("after", [PREFILL_S / 2, PREFILL_S + 0.0005, PREFILL_S + 0.005, PREFILL_S + 0.05, 0.5])
async def test_a_cancel_at_any_moment_frees_both_sides_soon(after: float) -> None:
    async with PdWorld() as world:
        await pair(world)
        await world.submit("r1", prompt=100, max_tokens=1000)
        await world.advance(after)
        world.plane.intake.cancel(RequestKey(tenant="t", request_id="r1"), "enough")
        await world.advance(1.9)
        world.assert_all_room_is_free()


async def test_a_deadline_between_the_legs_frees_both_sides() -> None:
    async with PdWorld() as world:
        await pair(world)
        reader = await world.submit("r1", prompt=100, max_tokens=1000, deadline_s=PREFILL_S + 0.005)
        await world.advance(2)
        assert isinstance(reader.error, DeadlineExceeded)
        world.assert_all_room_is_free()


async def test_without_a_prefill_instance_requests_run_whole_and_that_is_loud() -> None:
    async with PdWorld() as world:
        world.add_pd("d", DECODING)
        await world.advance(1)
        reader = await world.submit("r1", prompt=100)
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert any("prefill legs" in c for c in world.plane.scheduler.pd_conditions())


async def test_draining_prefill_finishes_what_it_has_and_gets_nothing_new() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        first = await world.submit("first", prompt=100)
        await world.advance(PREFILL_S / 2)
        world.plane.instances.orders.drain("p", "maintenance", by_operator=True)
        second = await world.submit("second", prompt=100)
        await world.advance(3)
        assert first.token_ids == second.token_ids == expected(20)
        assert p.log == ["prefilling first"]
        assert world.state("p") is InstanceState.DRAINED


async def test_a_role_changes_what_an_instance_is_given_while_it_runs() -> None:
    async with PdWorld() as world:
        p, _ = await pair(world)
        world.plane.scheduler.set_role("p", InstanceRole.GENERAL)
        reader = await world.submit("r1", prompt=100)
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert "assign r1" in p.log


async def test_hybrid_instances_take_either_leg_but_never_both() -> None:
    async with PdWorld() as world:
        world.add_pd("h1", HYBRID)
        world.add_pd("h2", HYBRID)
        await world.ready()
        readers = [await world.submit(f"r{i}", prompt=100) for i in range(4)]
        await world.advance(5)
        for reader in readers:
            decision = reader.live.placements[0].decision
            assert decision.prefill is not None
            assert decision.prefill.instance_id != decision.instance_id
            assert reader.token_ids == expected(20)
        world.assert_all_room_is_free()
