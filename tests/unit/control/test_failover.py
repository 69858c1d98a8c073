"""Executors die, stall, fall silent, come back: every client's stream goes on, each token once and in order."""

from __future__ import annotations

import pytest

from scheduler_svc.control.instances.registration import DuplicateInstance, Registration
from scheduler_svc.domain.errors import GenerationFailed
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from tests.unit.control.world import MODEL, ModelledExecutor, World, expected


async def test_a_crash_mid_stream_goes_on_elsewhere() -> None:
    async with World() as world:
        a = world.add("a")
        b = world.add("b")
        readers = [await world.submit(f"r{i}", max_tokens=100) for i in range(4)]
        await world.advance(0.5)
        assert a.held
        assert b.held
        a.crash()
        await world.advance(5)
        for reader in readers:
            assert reader.token_ids == expected(100)
        assert any(reader.instances == ["a", "b"] for reader in readers)
        assert world.state("a") is InstanceState.LOST
        world.assert_all_room_is_free()


async def test_a_lost_instance_comes_back_by_itself_when_started_again() -> None:
    async with World() as world:
        a = world.add("a")
        a.crash()
        await world.advance(1)
        a.restart()
        reader = await world.submit("r1")
        await world.advance(2)
        assert reader.instances == ["a"]
        assert world.state("a") is InstanceState.READY


async def test_a_short_cut_is_bridged_without_a_new_attempt() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        readers = [await world.submit(f"r{i}", max_tokens=100) for i in range(4)]
        await world.advance(0.3)
        a.disconnect()
        assert world.state("a") is InstanceState.SUSPECT
        await world.advance(0.2)
        a.connect()
        await world.advance(3)
        for reader in readers:
            assert reader.token_ids == expected(100)
            assert len(reader.instances) == 1
        assert world.state("a") is InstanceState.READY


async def test_a_long_cut_fences_what_the_old_attempt_still_sends() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        readers = [await world.submit(f"r{i}", max_tokens=300) for i in range(4)]
        await world.advance(0.3)
        a.disconnect()
        await world.advance(1.0)  # past the grace: its work went elsewhere
        assert world.state("a") is InstanceState.LOST
        a.connect()
        assert not a.held, "the scheduler keeps none of its attempts"
        await world.advance(6)
        for reader in readers:
            assert reader.token_ids == expected(300)
        world.assert_all_room_is_free()


async def test_an_assignment_lost_with_the_stream_is_placed_again() -> None:
    async with World() as world:
        a = world.add("a", lost_assigns=True)
        reader = await world.submit("r1")
        await world.advance(0.1)
        a.disconnect()
        a.lost_assigns = False
        await world.advance(0.1)
        a.connect()
        await world.advance(2)
        assert reader.token_ids == expected(20)
        world.assert_all_room_is_free()


async def test_silence_past_the_lease_loses_the_instance() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        readers = [await world.submit(f"r{i}", max_tokens=3000) for i in range(2)]
        await world.advance(0.3)
        a.silent = a.hung = True
        await world.advance(3)
        assert world.state("a") is InstanceState.SUSPECT
        await world.advance(3)
        assert world.state("a") is InstanceState.LOST
        await world.advance(40)
        for reader in readers:
            assert reader.token_ids == expected(3000)


async def test_leases_run_later_by_the_schedulers_own_lag() -> None:
    async with World() as world:
        a = world.add("a")
        await world.advance(1)
        a.silent = True
        await world.advance(3)
        world.plane.loop_lag.observe(4.0)  # this process itself was busy that long
        await world.advance(4)
        assert world.state("a") is InstanceState.SUSPECT
        await world.advance(3)
        assert world.state("a") is InstanceState.LOST


async def test_a_lying_heartbeat_is_caught_by_progress() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        readers = [await world.submit(f"r{i}", max_tokens=200) for i in range(4)]
        await world.advance(0.3)
        a.hung = True  # heartbeats go on
        await world.advance(12)
        assert world.state("a") is InstanceState.STALLED
        await world.advance(5)
        for reader in readers:
            assert reader.token_ids == expected(200)
        later = await world.submit("later")
        await world.advance(2)
        assert later.instances == ["b"]


async def test_a_stalled_instance_that_moves_again_is_fenced_and_proves_itself() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        readers = [await world.submit(f"r{i}", max_tokens=2000) for i in range(2)]
        await world.advance(0.3)
        a.hung = True
        await world.advance(12)
        assert world.state("a") is InstanceState.STALLED
        a.hung = False
        await world.advance(60)
        for reader in readers:
            assert reader.token_ids == expected(2000)
        assert world.state("a") is InstanceState.READY


async def test_a_rejected_assignment_goes_elsewhere() -> None:
    async with World() as world:
        world.add("a", refuses="draining")
        world.add("b")
        readers = [await world.submit(f"r{i}") for i in range(4)]
        await world.advance(3)
        for reader in readers:
            assert reader.token_ids == expected(20)
            assert reader.instances[-1] == "b"


async def test_engine_failures_in_a_row_put_an_instance_to_rest() -> None:
    async with World() as world:
        a = world.add("a", fails="device error")
        world.add("b")
        readers = [await world.submit(f"r{i}") for i in range(8)]
        await world.advance(2)
        for reader in readers:
            assert reader.token_ids == expected(20)
        assert world.state("a") is InstanceState.SUSPECT
        a.fails = ""
        await world.advance(6)
        assert world.state("a") is InstanceState.READY


async def test_a_request_that_fails_everywhere_ends_after_its_attempts() -> None:
    async with World() as world:
        world.add("a", fails="poison")
        world.add("b", fails="poison")
        reader = await world.submit("r1")
        await world.advance(120)
        assert isinstance(reader.error, GenerationFailed)
        assert "poison" in str(reader.error)
        world.assert_all_room_is_free()


async def test_the_callers_fault_never_counts_against_an_instance() -> None:
    async with World() as world:
        world.add("a", invalid="sampling.regex")
        for i in range(20):
            await world.submit(f"r{i}")
        await world.advance(2)
        assert world.state("a") is InstanceState.READY


async def test_a_second_executor_of_the_same_id_is_refused_while_the_first_lives() -> None:
    async with World() as world:
        world.add("a")
        twin = ModelledExecutor(world=world, instance_id="a", start_id="another")
        with pytest.raises(DuplicateInstance, match="'a'"):
            twin.connect()


async def test_a_restart_that_outruns_the_grace_is_welcome() -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", max_tokens=100)
        await world.advance(0.3)
        a.crash()
        a.restart()
        await world.advance(3)
        assert reader.token_ids == expected(100)
        assert reader.instances == ["a", "a"]


async def test_a_drained_instance_finishes_what_it_has_and_gets_nothing_new() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        running = [await world.submit(f"r{i}", max_tokens=100) for i in range(4)]
        await world.advance(0.2)
        assert a.held
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        assert a.draining
        later = [await world.submit(f"later{i}") for i in range(4)]
        await world.advance(3)
        assert all(reader.token_ids == expected(100) for reader in running)
        assert {i for reader in later for i in reader.instances} == {"b"}
        assert world.state("a") is InstanceState.DRAINED
        world.plane.instances.orders.resume("a")
        assert world.state("a") is InstanceState.READY


async def test_a_drain_outlives_the_executor() -> None:
    async with World() as world:
        a = world.add("a")
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        a.crash()
        await world.advance(1)
        a.restart()
        await world.advance(1)
        assert world.state("a") is InstanceState.DRAINED


async def test_a_late_word_of_a_replaced_session_changes_nothing() -> None:
    async with World() as world:
        a = world.add("a")
        old = a.session
        assert old is not None
        a.disconnect()
        a.connect()
        world.plane.instances.sessions.control_broken(old, "late")
        world.plane.instances.sessions.goodbye(old, "late")
        await world.advance(1)
        assert world.state("a") is InstanceState.READY


async def test_registrations_past_the_grace_meet_a_clean_slate() -> None:
    async with World() as world:
        a = world.add("a")
        await world.submit("r1", max_tokens=500)
        await world.advance(0.3)
        a.disconnect()
        await world.advance(1)
        spec = InstanceSpec(instance_id="a", model=MODEL, engine_start_id=a.start_id)
        welcome = world.plane.instances.registrar.register(Registration(spec=spec), a)
        assert welcome.keep == ()


async def test_a_request_of_the_only_instance_outlasts_its_drain_though_nobody_announced_it() -> None:
    """An executor that goes may reject what crossed with its wish to, again and again, before the wish arrives."""
    async with World() as world:
        world.add("a", refuses="draining")
        reader = await world.submit("r1")
        await world.advance(1)
        assert reader.live.attempts == 1
        assert world.state("a") is InstanceState.DRAINED
        world.add("b")
        await world.advance(1)
        assert reader.token_ids == expected(20)
        assert reader.instances == ["a", "b"]
