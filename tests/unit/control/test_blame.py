"""Only the culprit pays: requests, instances and links are blamed for what they did, and for nothing else."""

from __future__ import annotations

import logging

import pytest

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.control.attempts.request_runner import MOVES_LIMIT
from scheduler_svc.control.instances.cool_downs import CoolDowns
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.requests.record_size import record_size
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.errors import GenerationFailed, NoInstance, RequestCancelled
from scheduler_svc.domain.instance_spec import InstanceRole, InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import RequestKey
from tests.unit.control.handoff_world import PREFILL_S, PdWorld
from tests.unit.control.world import ModelledExecutor, Reader, World, expected


def engine_dies(executor: ModelledExecutor) -> None:
    """What an executor reports when its engine dies: the ends of its attempts, then the engine's state."""
    world, session = executor.world, executor.session
    assert session is not None
    for number, one in list(executor.held.items()):
        end = AttemptEnd(
            attempt_number=number,
            cause=EndCause.FAILED,
            message="the engine died: CUDA error",
            total_tokens=one.tokens,
            engine_died=True,
        )
        world.plane.attempts.ended(executor.instance_id, end)
    executor.held.clear()
    executor.dead = True
    world.plane.instances.reports.engine_status(session, InstanceState.FAILED, None, "the engine died", None)
    world.plane.instances.sessions.goodbye(session, "failed")
    executor.connected = False


def where(reader: Reader) -> str:
    return reader.live.placements[-1].decision.instance_id


# --- failures of requests ------------------------------------------------------------------------------


async def test_one_request_that_fails_again_and_again_does_not_rest_its_instance() -> None:
    async with World() as world:
        world.add("a", fails="out of luck")
        await world.submit("r1")
        await world.advance(1)
        assert world.state("a") is InstanceState.READY


async def test_an_instance_that_rejects_everything_rests_even_if_one_request_asks() -> None:
    async with World() as world:
        world.add("a", refuses="full")
        await world.submit("r1")
        await world.advance(1)
        assert world.state("a") is InstanceState.SUSPECT


async def test_a_success_during_a_cool_down_does_not_end_it() -> None:
    clock = VirtualClock()
    over: list[str] = []
    rests = CoolDowns(clock, SessionSettings(failures_to_suspect=1, probation_s=5.0), over.append)
    assert rests.failed("a", "device error", may_start=True) is not None
    rests.succeeded("a")
    assert rests.reason("a") is not None
    await clock.advance(5)
    assert rests.reason("a") is None
    assert over == ["a"]


def test_failures_count_once_for_each_request() -> None:
    rests = CoolDowns(VirtualClock(), SessionSettings(failures_to_suspect=2), lambda _: None)
    one, another = RequestKey(tenant="", request_id="1"), RequestKey(tenant="", request_id="2")
    assert rests.failed("a", "error", may_start=True, key=one) is None
    assert rests.failed("a", "error", may_start=True, key=one) is None
    assert rests.failed("a", "error", may_start=True, key=another) is not None


# --- what counts towards the limit of attempts -----------------------------------------------------------


async def test_moves_without_fault_do_not_count() -> None:
    async with World() as world:
        for name in ("a", "b"):
            world.add(name)
        reader = await world.submit("r1", max_tokens=1000)
        for _ in range(8):
            await world.advance(0.1)
            executor = world.executors[where(reader)]
            executor.crash()  # after new tokens
            await world.advance(0.4)
            executor.restart()
        await world.advance(15)
        assert reader.token_ids == expected(1000)
        assert reader.finished.attempts == 9


async def test_what_an_executor_gives_back_does_not_count() -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", max_tokens=50)
        for _ in range(8):
            await world.advance(0.005)
            number, one = next(iter(a.held.items()))
            del a.held[number]
            end = AttemptEnd(attempt_number=number, cause=EndCause.CANCELLED, total_tokens=one.tokens)
            world.plane.attempts.ended("a", end)
        await world.advance(5)
        assert reader.token_ids == expected(50)


async def test_attempts_without_a_new_token_count() -> None:
    async with World() as world:
        world.add("a", fails="device error")
        reader = await world.submit("r1")
        await world.advance(120)
        assert isinstance(reader.error, GenerationFailed)
        assert reader.error.attempts == 5


async def test_attempts_are_bounded_even_without_fault() -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", max_tokens=50)
        for _ in range(MOVES_LIMIT + 10):
            await world.advance(0.001)
            for number in list(a.held):
                del a.held[number]
                end = AttemptEnd(attempt_number=number, cause=EndCause.CANCELLED)
                world.plane.attempts.ended("a", end)
        await world.advance(0.001)
        assert isinstance(reader.error, GenerationFailed)
        assert reader.live.attempts == MOVES_LIMIT


# --- engines that die of one request -----------------------------------------------------------------------


async def test_a_request_present_at_two_engine_deaths_runs_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        executors = {name: world.add(name) for name in ("a", "b", "c")}
        poison = await world.submit("poison", max_tokens=50)
        innocent = [await world.submit(f"r{i}", max_tokens=400) for i in range(6)]
        with caplog.at_level(logging.ERROR):
            for _ in range(2):
                await world.advance(0.005)
                engine_dies(executors[where(poison)])
        assert "request t/poison is quarantined" in caplog.text
        assert poison.live.history[-1].event == "quarantined"
        await world.advance(0.5)
        [left] = [e for e in executors.values() if not e.dead]
        assert left.held, "what ran there goes on"
        assert all(one.order.request.key.request_id != "poison" for one in left.held.values())
        await world.advance(30)
        assert poison.token_ids == expected(50)
        reasons = poison.live.placements[-1].decision.reasons
        assert any("quarantined: runs alone" in reason for reason in reasons)
        for reader in innocent:
            assert reader.token_ids == expected(400)


async def test_it_is_alone_while_it_runs_and_then_the_instance_serves_all_again() -> None:
    async with World() as world:
        executors = {name: world.add(name) for name in ("a", "b", "c")}
        poison = await world.submit("poison", max_tokens=100)
        for _ in range(2):
            await world.advance(0.005)
            engine_dies(executors[where(poison)])
        # it survives at the third, without a token yet
        await world.advance(0.004)
        other = await world.submit("other", max_tokens=5)
        await world.advance(0.002)
        assert len(executors[where(poison)].held) == 1
        await world.advance(2)
        assert other.token_ids == expected(5)
        assert poison.token_ids == expected(100)


async def test_the_engine_that_dies_alone_with_it_is_the_last() -> None:
    async with World() as world:
        executors = {name: world.add(name) for name in ("a", "b", "c", "d")}
        poison = await world.submit("poison", max_tokens=100)
        for _ in range(3):
            await world.advance(0.005)
            engine_dies(executors[where(poison)])
        await world.advance(1)
        assert isinstance(poison.error, GenerationFailed)
        assert "quarantined" in str(poison.error)
        assert [e.instance_id for e in executors.values() if not e.dead] == ["d"]
        again = await world.submit("poison", max_tokens=100)
        await world.advance(1)
        assert isinstance(again.error, GenerationFailed), "the same request is not tried again"


async def test_deaths_after_new_tokens_end_a_request_only_at_the_fourth() -> None:
    async with World() as world:
        executors = {name: world.add(name) for name in ("a", "b", "c", "d", "e")}
        unlucky = await world.submit("unlucky", max_tokens=500)
        for seconds in (0.205, 0.155, 0.105, 0.055):
            assert unlucky.error is None
            await world.advance(seconds)
            engine_dies(executors[where(unlucky)])
        await world.advance(0.1)
        assert isinstance(unlucky.error, GenerationFailed)
        assert "quarantined" in str(unlucky.error)


async def test_a_request_that_outlives_its_deaths_alone_is_acquitted() -> None:
    async with World() as world:
        executors = {name: world.add(name) for name in ("a", "b", "c")}
        unlucky = await world.submit("unlucky", max_tokens=500)
        for _ in range(2):
            await world.advance(0.105)
            engine_dies(executors[where(unlucky)])
        await world.advance(0.05)
        other = await world.submit("other", max_tokens=5)
        foreign = await world.submit("foreign", max_tokens=5, tenant="u")
        await world.advance(0.02)
        assert other.token_ids == [], "it waits for the instance that is kept"
        for waiting, whom in ((other, "t/unlucky"), (foreign, "a request of another tenant")):
            because = world.plane.explainer.explain(waiting.live.key).waiting_because
            assert because.endswith(f"is kept for {whom}, which is quarantined and runs alone")
        await world.advance(0.5)
        assert other.token_ids == expected(5)
        assert [e.event for e in unlucky.live.history if e.event in ("quarantined", "acquitted")] == [
            "quarantined",
            "acquitted",
        ]
        await world.advance(6)
        assert unlucky.token_ids == expected(500)


async def test_a_quarantined_request_that_is_cancelled_gives_its_instance_back() -> None:
    async with World() as world:
        executors = {name: world.add(name) for name in ("a", "b", "c")}
        poison = await world.submit("poison", max_tokens=100)
        busy = await world.submit("busy", max_tokens=1000, preferred_instance="c")
        for _ in range(2):
            await world.advance(0.005)
            engine_dies(executors[where(poison)])
        await world.advance(0.1)
        assert not any(one.order.request.key.request_id == "poison" for one in executors["c"].held.values())
        world.plane.intake.cancel(RequestKey(tenant="t", request_id="poison"), "")
        other = await world.submit("other", max_tokens=5)
        await world.advance(1)
        assert isinstance(poison.error, RequestCancelled)
        assert other.token_ids == expected(5)
        assert not busy.live.state.ended


async def test_the_deaths_of_prefill_engines_count_and_a_quarantined_request_is_not_split() -> None:
    async with PdWorld() as world:
        executors = {"p": world.add_pd("p", InstanceRole.PREFILLING), "d": world.add_pd("d", InstanceRole.DECODING)}
        await world.ready()
        executors["h"] = world.add_pd("h", InstanceRole.HYBRID)
        reader = await world.submit("r", prompt=100, max_tokens=20)
        await world.advance(PREFILL_S / 2)
        engine_dies(executors["p"])
        await world.advance(0.002)
        assert reader.live.setbacks.deaths == ["p"]
        engine_dies(executors[where(reader)])  # which computed the prompt itself
        await world.advance(1)
        [quarantined] = [entry for entry in reader.live.history if entry.event == "quarantined"]
        assert "the engines of p, d died" in quarantined.detail
        assert reader.token_ids == expected(20)
        last = reader.live.placements[-1].decision
        assert last.prefill is None
        assert any("quarantined: runs alone" in reason for reason in last.reasons)


async def test_an_engine_that_died_by_the_end_of_an_attempt_gets_nothing_more() -> None:
    """The executor's report that its engine is gone comes on another stream, later."""
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r", max_tokens=100)
        other = await world.submit("other", max_tokens=100)
        await world.advance(0.1)
        number, one = a.held.popitem()
        end = AttemptEnd(
            attempt_number=number, cause=EndCause.FAILED, message="died", total_tokens=one.tokens, engine_died=True
        )
        world.plane.attempts.ended("a", end)
        assert world.state("a") is InstanceState.FAILED
        a.dead = True
        a.log.clear()
        await world.advance(1)
        assert not [line for line in a.log if line.startswith("assign")]
        assert [r.live.setbacks.deaths for r in (reader, other)] == [["a"], ["a"]]


async def test_lost_connections_in_mid_stream_raise_no_suspicion() -> None:
    async with World() as world:
        executors = {name: world.add(name) for name in ("a", "b", "c")}
        reader = await world.submit("r1", max_tokens=200)
        for _ in range(2):
            await world.advance(0.2)
            executors[where(reader)].crash()
            await world.advance(0.4)
        await world.advance(5)
        assert reader.token_ids == expected(200)
        assert not [e for e in reader.live.history if e.event == "quarantined"]


# --- ends that the service caused ---------------------------------------------------------------------------


async def test_an_end_for_want_of_an_instance_is_not_kept_as_the_answer() -> None:
    async with World(queue={"orphan_timeout_s": 1.0}) as world:
        a = world.add("a")
        first = await world.submit("r1", max_tokens=200)
        await world.advance(0.1)
        a.crash()
        await world.advance(3)
        assert isinstance(first.error, NoInstance)
        a.restart()
        again = await world.submit("r1", max_tokens=200)
        await world.advance(3)
        assert again.token_ids == expected(200)
        assert len(world.plane.requests) == 0


async def test_a_broken_connection_is_not_the_answer_either() -> None:
    async with World() as world:
        world.add("a")
        first = await world.submit("r1", max_tokens=200)
        await world.advance(0.1)
        await first.go_away()
        assert isinstance(first.live.outcome, RequestCancelled)
        again = await world.submit("r1", max_tokens=200)
        await world.advance(3)
        assert again.token_ids == expected(200)


async def test_a_cancellation_that_a_caller_asked_for_stays_the_answer() -> None:
    async with World() as world:
        world.add("a")
        await world.submit("r1", max_tokens=200)
        await world.advance(0.1)
        world.plane.intake.cancel(RequestKey(tenant="t", request_id="r1"), "enough")
        again = await world.submit("r1", max_tokens=200)
        await world.advance(1)
        assert isinstance(again.error, RequestCancelled)


async def test_the_record_weighs_a_request_once_though_its_id_was_used_twice() -> None:
    async with World() as world:
        world.add("a")
        for _ in range(3):
            reader = await world.submit("r1", max_tokens=200)
            await world.advance(0.1)
            await reader.go_away()
        requests = world.plane.requests
        assert [requests.recorded_bytes] == [record_size(live) for live in requests.recent()]


# --- cost ---------------------------------------------------------------------------------------------------


async def test_the_cost_of_a_lost_attempt_is_in_the_cost() -> None:
    async with World() as world:
        for name in ("a", "b"):
            executor = ModelledExecutor(world=world, instance_id=name)
            world.executors[name] = executor
            executor.connect()
            spec = InstanceSpec(instance_id=name, model="m", engine_start_id=executor.start_id, price_per_hour=3600.0)
            world.plane.scheduler.register(spec, world.clock.now())
        reader = await world.submit("r1", max_tokens=400)
        await world.advance(3)
        world.executors[where(reader)].crash()
        await world.advance(5)
        assert reader.token_ids == expected(400)
        assert reader.finished.cost == pytest.approx(3.3 + 1.0, rel=0.2)
