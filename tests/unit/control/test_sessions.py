"""An executor's session at its edges: reconnects that half succeed, drains that meet them, engines that give up."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.instances.registration import DuplicateInstance, Registration, UnknownSession
from scheduler_svc.domain.errors import InvalidTransition
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from tests.unit.control.world import EPOCH, MODEL, ModelledExecutor, World, expected


def registration(executor: ModelledExecutor) -> Registration:
    """What it would say now, the attempts it holds included."""
    held = tuple(HeldAttempt(epoch=EPOCH, number=n, tokens=r.tokens, ended=False) for n, r in executor.held.items())
    spec = InstanceSpec(instance_id=executor.instance_id, model=MODEL, engine_start_id=executor.start_id)
    return Registration(spec=spec, resume_secret=executor.resume_secret, held=held)


# --- reconnects -----------------------------------------------------------------------------------


async def test_a_cancel_during_a_cut_frees_the_room_when_the_executor_is_back() -> None:
    """The executor drops what it may not keep without a word, so nobody else would free it."""
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", max_tokens=1000)
        await world.advance(0.3)
        a.disconnect()
        await reader.go_away()
        await world.advance(0.1)
        a.connect()
        assert not a.held
        world.assert_all_room_is_free()


async def test_a_newer_session_takes_over_before_the_older_one_is_seen_to_break() -> None:
    """And nothing is placed there before its output stream is up."""
    async with World() as world:
        a = world.add("a")
        running = await world.submit("running", max_tokens=100)
        await world.advance(0.3)
        welcome = world.plane.instances.registrar.register(registration(a), a)
        assert world.state("a") is InstanceState.SUSPECT
        waiting = None
        await world.advance(0.1)
        assert len(running.live.placements) == 1, "nothing moved"
        a.session = world.plane.instances.sessions.by_id(welcome.session_id)
        a.connected = True
        world.plane.instances.sessions.outputs_opened(welcome.session_id)
        assert world.state("a") is InstanceState.READY
        waiting = await world.submit("waiting")
        await world.advance(3)
        assert running.token_ids == expected(100)
        assert waiting.token_ids == expected(20)


@pytest.mark.parametrize("secret", [b"", b"guessed", b"x" * 16])
async def test_who_knows_all_but_the_secret_takes_nothing_over(secret: bytes) -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", max_tokens=100)
        await world.advance(0.3)
        thief = ModelledExecutor(world=world, instance_id="a", start_id=a.start_id)
        with pytest.raises(DuplicateInstance):
            world.plane.instances.registrar.register(replace(registration(a), resume_secret=secret), thief)
        a.disconnect()
        with pytest.raises(DuplicateInstance):  # nor in the moment in which the executor is away
            world.plane.instances.registrar.register(replace(registration(a), resume_secret=secret), thief)
        a.connect()
        await world.advance(3)
        assert reader.token_ids == expected(100)
        assert reader.instances == ["a"]


async def test_a_welcome_that_is_lost_costs_a_reconnect_nothing() -> None:
    """The secret stays the same as long as sessions follow on one another, so the one before still counts."""
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", max_tokens=100)
        await world.advance(0.3)
        a.disconnect()
        world.plane.instances.registrar.register(registration(a), a)
        a.connect()
        await world.advance(3)
        assert reader.token_ids == expected(100)
        assert reader.instances == ["a"]


async def test_a_new_engine_gets_a_new_secret() -> None:
    async with World() as world:
        a = world.add("a")
        before = a.resume_secret
        a.crash()
        await world.advance(1)
        a.restart()
        assert a.resume_secret != before
        assert len(a.resume_secret) == 16
        assert a.resume_secret.hex() not in repr(a.session) + repr(registration(a))


async def test_a_session_that_never_gets_its_output_stream_is_given_up() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        readers = [await world.submit(f"r{i}", max_tokens=100) for i in range(2)]
        await world.advance(0.3)
        a.disconnect()
        welcome = world.plane.instances.registrar.register(registration(a), a)
        a.session = world.plane.instances.sessions.by_id(welcome.session_id)
        a.connected = True  # heartbeats go on, outputs do not
        a.hung = True
        await world.advance(4)
        assert world.state("a") is InstanceState.SUSPECT
        await world.advance(2)
        assert world.state("a") is InstanceState.LOST
        await world.advance(3)
        assert all(reader.token_ids == expected(100) for reader in readers)


async def test_an_output_stream_of_a_replaced_session_is_refused() -> None:
    async with World() as world:
        a = world.add("a")
        assert a.session is not None
        old = a.session.session_id
        a.connect()
        with pytest.raises(UnknownSession, match="no session of this id"):
            world.plane.instances.sessions.outputs_opened(old)


async def test_an_end_that_was_lost_with_everything_delivered_is_asked_for_elsewhere() -> None:
    async with World() as world:
        a = world.add("a", loses_ends=True)
        world.add("b")
        reader = await world.submit("r1", max_tokens=20, preferred_instance="a")
        await world.advance(1)
        assert reader.token_ids == expected(20)
        a.crash()
        await world.advance(1)
        assert reader.finished.completion_tokens == 20
        assert reader.token_ids == expected(20)


# --- engines --------------------------------------------------------------------------------------


async def test_an_engine_that_failed_gives_its_work_back_at_once() -> None:
    async with World() as world:
        a = world.add("a")
        readers = [await world.submit(f"r{i}", max_tokens=100) for i in range(2)]
        await world.advance(0.3)
        world.add("b")
        a.hung = True
        assert a.session is not None
        world.plane.instances.reports.engine_status(a.session, InstanceState.FAILED, None, "out of memory", None)
        await world.advance(2)
        assert all(reader.token_ids == expected(100) for reader in readers)
        assert world.state("a") is InstanceState.FAILED
        world.assert_all_room_is_free()


async def test_why_an_engine_failed_is_still_known_when_its_executor_has_gone() -> None:
    async with World() as world:
        a = world.add("a")
        assert a.session is not None
        world.plane.instances.reports.engine_status(a.session, InstanceState.FAILED, None, "out of memory", None)
        world.plane.instances.sessions.goodbye(a.session, "")
        instance = world.plane.scheduler.instance("a")
        assert instance.state is InstanceState.FAILED
        assert instance.state_reason == "out of memory"


async def test_a_reconnect_does_not_end_a_rest() -> None:
    async with World() as world:
        a = world.add("a", fails="device error")
        world.add("b")
        for i in range(8):
            await world.submit(f"r{i}")
        await world.advance(1)
        assert world.state("a") is InstanceState.SUSPECT
        a.disconnect()
        a.connect()
        await world.advance(1)
        assert world.state("a") is InstanceState.SUSPECT
        assert "device error" in world.plane.scheduler.instance("a").state_reason


async def test_a_new_engine_is_not_blamed_for_the_one_before() -> None:
    async with World() as world:
        a = world.add("a", fails="device error")
        world.add("b")
        for i in range(8):
            await world.submit(f"r{i}")
        await world.advance(1)
        a.crash()
        a.fails = ""
        a.restart()
        assert world.state("a") is InstanceState.READY


async def test_an_only_instance_that_rejects_everything_is_asked_at_leisure() -> None:
    """Else every attempt of a request would be spent within milliseconds."""
    async with World() as world:
        a = world.add("a", refuses="full")
        reader = await world.submit("r1")
        await world.advance(1)
        assert reader.live.attempts == 3
        assert world.state("a") is InstanceState.SUSPECT
        a.refuses = ""
        await world.advance(6)
        assert reader.token_ids == expected(20)


# --- drains ---------------------------------------------------------------------------------------


async def test_a_drained_executor_may_reconnect_and_stays_drained() -> None:
    async with World() as world:
        a = world.add("a")
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        assert world.state("a") is InstanceState.DRAINED
        a.disconnect()
        a.connect()
        assert world.state("a") is InstanceState.DRAINED
        assert a.draining, "the executor is told again"


async def test_an_instance_that_stalled_while_draining_ends_up_drained() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b")
        await world.submit("r1", max_tokens=3000, preferred_instance="a")
        await world.advance(0.3)
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        a.hung = True
        await world.advance(12)
        assert world.state("a") is InstanceState.STALLED
        a.hung = False
        a.held.clear()
        a.connect()
        await world.advance(60)
        assert world.state("a") is InstanceState.DRAINED


async def test_a_drain_can_be_taken_back_while_the_instance_is_cut_off() -> None:
    async with World() as world:
        a = world.add("a")
        await world.submit("r1", max_tokens=500)
        await world.advance(0.1)
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        a.disconnect()
        world.plane.instances.orders.resume("a")
        a.connect()
        assert world.state("a") is InstanceState.READY
        assert not a.draining


async def test_a_drain_can_be_taken_back_while_the_instance_is_gone() -> None:
    async with World() as world:
        a = world.add("a")
        world.plane.instances.orders.drain("a", "maintenance", by_operator=True)
        a.crash()
        await world.advance(1)
        world.plane.instances.orders.resume("a")
        a.restart()
        assert world.state("a") is InstanceState.READY


async def test_there_is_no_drain_to_take_back_from_an_instance_that_is_merely_gone() -> None:
    async with World() as world:
        world.add("a").crash()
        await world.advance(1)
        with pytest.raises(InvalidTransition, match="lost"):
            world.plane.instances.orders.resume("a")


async def test_an_executor_that_asks_to_be_drained_while_it_starts_gets_nothing() -> None:
    async with World() as world:
        a = ModelledExecutor(world=world, instance_id="a")
        world.executors["a"] = a
        welcome = world.plane.instances.registrar.register(registration(a), a)
        a.session, a.connected = world.plane.instances.sessions.by_id(welcome.session_id), True
        world.plane.instances.sessions.outputs_opened(welcome.session_id)
        world.plane.instances.reports.engine_status(a.session, InstanceState.LOADING, 0.5, "", None)
        world.plane.instances.orders.drain("a", "SIGTERM", by_operator=False)
        world.plane.instances.reports.engine_status(a.session, InstanceState.READY, None, "", a.facts())
        assert world.state("a") is InstanceState.DRAINED


async def test_an_executor_that_asks_to_be_drained_after_its_engine_failed_is_not_an_error() -> None:
    async with World() as world:
        a = world.add("a")
        assert a.session is not None
        world.plane.instances.reports.engine_status(a.session, InstanceState.FAILED, None, "out of memory", None)
        world.plane.instances.orders.drain("a", "SIGTERM", by_operator=False)
        assert world.state("a") is InstanceState.FAILED


async def test_an_operators_drain_is_forgotten_with_the_instance() -> None:
    """Else every instance that was ever drained before it was removed would be remembered for good."""
    async with World(instance={"forget_after_s": 5.0}) as world:
        a = world.add("a")
        world.plane.instances.orders.drain("a", "scaled down", by_operator=True)
        a.crash()
        await world.advance(10)
        assert world.plane.scheduler.find_instance("a") is None
        a.restart()
        assert world.state("a") is InstanceState.READY


async def test_heartbeats_are_acknowledged_several_times_in_each_lease() -> None:
    """Not each one: a thousand instances send thousands a second."""
    async with World() as world:
        times = world.add("a").acknowledged_heartbeats
        await world.advance(30)
        lease_s, heartbeats = 5.0, world._beats
    assert max(later - earlier for earlier, later in pairwise(times)) <= lease_s / 3
    assert len(times) <= heartbeats / 2 + 1
