"""A request's life: it ends exactly once, by whatever comes first."""

from __future__ import annotations

import asyncio

import pytest

from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NoInstance,
    QueueFull,
    RequestCancelled,
    RequestConflict,
    UnknownModel,
)
from scheduler_svc.domain.request import RequestKey, RequestState
from tests.unit.control.world import World, expected


async def test_a_request_runs_and_finishes() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=20)
        await world.advance(2)
        assert reader.token_ids == expected(20)
        assert reader.finished.completion_tokens == 20
        assert reader.finished.attempts == 1
        assert reader.live.state is RequestState.FINISHED
        world.assert_all_room_is_free()


async def test_requests_queue_and_all_finish() -> None:
    async with World() as world:
        world.add("a", max_running=2)
        readers = [await world.submit(f"r{i}") for i in range(30)]
        await world.advance(30)
        assert all(reader.token_ids == expected(20) for reader in readers)
        world.assert_all_room_is_free()


async def test_cancel_ends_it_and_frees_its_room() -> None:
    async with World() as world:
        executor = world.add("a")
        reader = await world.submit("r1", max_tokens=1000)
        await world.advance(0.5)
        cancelled, live = world.plane.intake.cancel(RequestKey(tenant="t", request_id="r1"), "enough")
        await world.advance(0.1)
        assert cancelled
        assert live.state is RequestState.CANCELLED
        assert isinstance(reader.error, RequestCancelled)
        assert not executor.held
        world.assert_all_room_is_free()


async def test_cancel_after_the_end_changes_nothing() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1")
        await world.advance(2)
        cancelled, live = world.plane.intake.cancel(RequestKey(tenant="t", request_id="r1"), "late")
        assert not cancelled
        assert live.state is RequestState.FINISHED
        assert reader.finished.completion_tokens == 20


async def test_cancel_in_the_queue_never_reaches_an_executor() -> None:
    async with World() as world:
        executor = world.add("a", max_running=1)
        await world.submit("busy", max_tokens=500)
        await world.submit("ahead", max_tokens=500)
        waiting = await world.submit("waiting")
        await world.advance(0.1)
        world.plane.intake.cancel(RequestKey(tenant="t", request_id="waiting"), "")
        await world.advance(20)
        assert isinstance(waiting.error, RequestCancelled)
        assert "assign waiting" not in executor.log


async def test_a_client_that_goes_away_cancels_its_request() -> None:
    async with World() as world:
        executor = world.add("a")
        reader = await world.submit("r1", max_tokens=1000)
        await world.advance(0.5)
        await reader.go_away()
        await world.advance(0.1)
        assert reader.live.state is RequestState.CANCELLED
        assert not executor.held
        world.assert_all_room_is_free()


async def test_a_detached_request_outlives_its_client_and_can_be_read_later() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=100, detached=True)
        await world.advance(0.5)
        await reader.go_away()
        await world.advance(3)
        again = await world.submit("r1", max_tokens=100, detached=True, after_token=0)
        await world.advance(0.1)
        assert again.subscription.attached
        assert again.token_ids == expected(100)
        assert again.finished.completion_tokens == 100


async def test_the_same_id_and_content_attaches_from_a_position() -> None:
    async with World() as world:
        world.add("a")
        first = await world.submit("r1", max_tokens=50)
        await world.advance(0.2)
        second = await world.submit("r1", max_tokens=50, after_token=10)
        await world.advance(2)
        assert first.token_ids == expected(50)
        assert second.subscription.attached
        assert second.token_ids == expected(50)[10:]
        assert second.finished == first.finished


async def test_the_same_id_with_other_content_is_refused() -> None:
    async with World() as world:
        world.add("a")
        await world.submit("r1", max_tokens=50)
        with pytest.raises(RequestConflict, match="r1"):
            await world.submit("r1", max_tokens=51)


async def test_a_deadline_in_the_queue_expires_it() -> None:
    async with World() as world:
        world.add("a", max_running=1)
        await world.submit("busy", max_tokens=2000)
        await world.submit("ahead", max_tokens=2000)
        reader = await world.submit("late", deadline_s=1.0)
        await world.advance(1.1)
        assert isinstance(reader.error, DeadlineExceeded)
        assert reader.live.state is RequestState.EXPIRED


async def test_a_deadline_while_running_stops_the_engine() -> None:
    async with World() as world:
        executor = world.add("a")
        reader = await world.submit("r1", max_tokens=2000, deadline_s=1.0)
        await world.advance(1.1)
        assert isinstance(reader.error, DeadlineExceeded)
        assert 50 < len(reader.token_ids) < 2000
        assert not executor.held
        world.assert_all_room_is_free()


async def test_what_only_the_engine_notices_is_the_callers_fault_all_the_same() -> None:
    async with World() as world:
        executor = world.add("a")
        world.add("b")
        executor.invalid = world.executors["b"].invalid = "sampling.structured_output.regex"
        reader = await world.submit("r1")
        await world.advance(1)
        assert isinstance(reader.error, InvalidRequest)
        assert reader.error.violations[0].field == "spec.sampling.structured_output.regex"
        assert len(reader.live.placements) == 1, "the caller's fault is not retried"


async def test_an_unknown_model_names_the_models_there_are() -> None:
    async with World() as world:
        world.add("a")
        with pytest.raises(UnknownModel, match="served now: m"):
            await world.submit("r1", model="other")


async def test_without_an_instance_it_fails_at_once_or_waits_as_asked() -> None:
    async with World(models={"m": {}}) as world:
        with pytest.raises(NoInstance):
            await world.submit("r1")
        waiting = asyncio.ensure_future(world.submit("r2", wait_for_instance=True))
        await world.advance(5)
        assert not waiting.done()
        world.add("a")
        await world.advance(2)
        assert (await waiting).token_ids == expected(20)


async def test_waiting_for_an_instance_ends_at_the_deadline() -> None:
    async with World(models={"m": {}}) as world:
        waiting = asyncio.ensure_future(world.submit("r2", wait_for_instance=True, deadline_s=2.0))
        await world.advance(2.1)
        with pytest.raises(DeadlineExceeded):
            await waiting


async def test_a_full_queue_refuses_with_the_expected_wait() -> None:
    async with World(queue={"limit_per_model": 3}) as world:
        world.add("a", max_running=1)
        for i in range(2):
            await world.submit(f"running{i}", max_tokens=500)
            await world.advance(0.05)
        for i in range(3):
            await world.submit(f"waiting{i}", max_tokens=500)
        with pytest.raises(QueueFull) as refused:
            await world.submit("one-too-many")
        assert refused.value.expected_wait_s > 0


async def test_a_request_whose_fleet_is_gone_for_good_ends_with_a_word() -> None:
    async with World(queue={"orphan_timeout_s": 10}) as world:
        executor = world.add("a", max_running=1)
        await world.submit("busy", max_tokens=2000)
        await world.submit("ahead", max_tokens=2000)
        waiting = await world.submit("waiting")
        await world.advance(0.1)
        executor.crash()
        await world.advance(5)
        assert not waiting.task.done()
        await world.advance(6)
        assert isinstance(waiting.error, NoInstance)
        assert not len(world.plane.requests)


async def test_every_violation_is_named_at_once() -> None:
    async with World() as world:
        world.add("a")
        with pytest.raises(InvalidRequest) as refused:
            await world.submit("r1", prompt=5000, sampling={"temperature": -1.0, "top_p": float("nan")})
        fields = {v.field for v in refused.value.violations}
        assert {"spec.sampling.temperature", "spec.sampling.top_p"} <= fields
        assert any("4096" in v.description and "5000" in v.description for v in refused.value.violations)
