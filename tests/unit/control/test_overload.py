"""What happens where capacity does not suffice: limits of tenants, room at the door, deadlines, bounds on waiting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.domain.errors import DeadlineExceeded, Overloaded, QueueFull, TenantLimitReached
from scheduler_svc.domain.request import Priority, RequestKey
from tests.unit.control.world import Reader, World

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")


async def submit(world: World, tenant: str, name: str, **changes: Any) -> Reader:
    submission = replace(
        world.submission(name, **changes),
        key=RequestKey(tenant=tenant, request_id=name),
    )
    return Reader(world, await world.plane.intake.submit(submission))


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_full_queue_makes_room_for_a_higher_class(policy: str) -> None:
    async with World(policy=policy, queue={"limit_per_model": 3}) as world:
        world.add("a", max_running=1)
        for n in range(2):
            await world.submit(f"running{n}", max_tokens=1_000)
        await world.advance(0.1)
        older = await world.submit("older", priority=Priority.LOW)
        younger = await world.submit("younger", priority=Priority.LOW)
        normal = await world.submit("normal", priority=Priority.NORMAL)

        urgent = await world.submit("urgent", priority=Priority.CRITICAL)
        await world.advance(0.1)

        assert isinstance(younger.error, Overloaded)
        assert younger.error.cause == "displaced"
        assert younger.error.expected_wait_s > 0
        assert not any(each.live.state.ended for each in (older, normal, urgent))
        with pytest.raises(QueueFull):
            await world.submit("late", priority=Priority.BACKGROUND)


async def test_one_that_was_accepted_by_an_engine_before_never_makes_room() -> None:
    async with World(queue={"limit_per_model": 1}) as world:
        a = world.add("a", max_running=1)
        begun = await world.submit("begun", max_tokens=1_000, priority=Priority.LOW)
        await world.advance(0.5)
        assert begun.token_ids
        a.crash()
        await world.advance(1)

        with pytest.raises(QueueFull):
            await world.submit("urgent", priority=Priority.CRITICAL, wait_for_instance=True)

        assert not begun.live.state.ended


async def test_a_tenant_that_fills_the_queue_makes_room_for_another() -> None:
    async with World(queue={"limit_per_model": 50}) as world:
        world.add("a", max_running=1)
        flood: list[Reader] = []

        async def fill() -> None:
            for n in range(60):  # some run, or wait at the engine
                flood.append(await submit(world, "flood", f"f{n}", max_tokens=1_000))

        with pytest.raises(QueueFull):
            await fill()

        mine = await submit(world, "small", "mine")
        await world.advance(0.01)

        assert not mine.live.state.ended
        assert isinstance(flood[-1].error, Overloaded)
        assert sum(each.error is not None for each in flood) == 1


async def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    async with World(policy="priority") as world:
        world.add("a", max_running=1)
        first = await world.submit("first", max_tokens=100)
        await world.advance(2)
        assert first.finished.completion_tokens
        for n in range(20):
            await world.submit(f"w{n}", max_tokens=100)

        with pytest.raises(Overloaded, match="deadline") as refused:
            await world.submit("hopeless", max_tokens=100, deadline_s=2.0)
        await world.submit("urgent", max_tokens=100, deadline_s=2.0, priority=Priority.CRITICAL)

        assert refused.value.cause == "deadline"
        assert 10 < refused.value.expected_wait_s < 30


async def test_a_hopeless_deadline_may_be_accepted_all_the_same() -> None:
    async with World(queue={"unmeetable_deadlines": "accept"}) as world:
        world.add("a", max_running=1)
        await world.submit("first", max_tokens=100)
        await world.advance(2)
        for n in range(20):
            await world.submit(f"w{n}", max_tokens=100)

        hopeless = await world.submit("hopeless", max_tokens=100, deadline_s=2.0)

        assert not hopeless.live.state.ended


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_request_that_can_no_longer_make_it_ends_before_its_deadline(policy: str) -> None:
    async with World(policy=policy, queue={"unmeetable_deadlines": "accept"}) as world:
        world.add("a", max_running=1)
        for n in range(3):
            await world.submit(f"w{n}", max_tokens=2_000)
        await world.advance(0.1)
        late = await world.submit("late", max_tokens=500, deadline_s=8.0, sampling={"ignore_eos": True})

        await world.advance(6)

        assert isinstance(late.error, DeadlineExceeded)
        assert "in the queue" in str(late.error)


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_class_waits_no_longer_than_its_limit(policy: str) -> None:
    async with World(policy=policy, queue={"wait_limit_s": {"LOW": 3.0}}) as world:
        world.add("a", max_running=1)
        for n in range(3):
            await world.submit(f"w{n}", max_tokens=2_000)
        await world.advance(0.1)
        low = await world.submit("low", priority=Priority.LOW)
        normal = await world.submit("normal")

        await world.advance(2.5)
        assert not low.live.state.ended
        await world.advance(1)

        assert isinstance(low.error, Overloaded)
        assert low.error.cause == "queue_wait"
        assert not normal.live.state.ended


async def test_a_tenant_over_its_waiting_limit_is_refused_and_told_which() -> None:
    async with World(tenants={"acme": {"waiting_limit": 2}}) as world:
        world.add("a", max_running=1)
        for n in range(2):
            await submit(world, "other", f"r{n}", max_tokens=1_000)
        await world.advance(0.1)
        waiting = [await submit(world, "acme", f"w{n}") for n in range(2)]

        with pytest.raises(TenantLimitReached, match=r"waiting_limit \(2\)"):
            await submit(world, "acme", "third")
        await submit(world, "other", "mine")
        await world.advance(0.01)
        await waiting[0].go_away()
        await submit(world, "acme", "third")


async def test_a_tenant_at_its_running_limit_waits_and_delays_nobody() -> None:
    async with World(tenant_default={"running_limit": 2}) as world:
        world.add("a", max_running=8)
        many = [await submit(world, "acme", f"r{n}", max_tokens=100) for n in range(6)]
        other = await submit(world, "other", "mine", max_tokens=10)
        await world.advance(0.3)

        assert other.finished.completion_tokens
        assert sum(each.live.attempts for each in many) == 2
        assert "running_limit" in world.plane.explainer.explain(many[-1].live.key).waiting_because
        await world.advance(5)
        assert all(each.finished.completion_tokens for each in many)


async def test_a_tenant_that_does_not_want_to_wait_is_refused_at_its_running_limit() -> None:
    limits = {"running_limit": 2, "at_running_limit": "refuse"}
    async with World(tenants={"acme": limits}) as world:
        world.add("a", max_running=8)
        running = [await submit(world, "acme", f"r{n}", max_tokens=1_000) for n in range(2)]
        await world.advance(0.1)
        with pytest.raises(TenantLimitReached, match=r"running_limit \(2\)") as refused:
            await submit(world, "acme", "third")
        assert refused.value.expected_wait_s > 0
        await submit(world, "other", "mine", max_tokens=10)
        await running[0].go_away()
        await world.advance(0.1)
        await submit(world, "acme", "third")


async def test_a_tenant_at_its_running_limit_is_told_its_own_wait() -> None:
    async with World(tenant_default={"running_limit": 1}) as world:
        world.add("a", max_running=8)
        learned = await submit(world, "other", "learned", max_tokens=100)
        await world.advance(5)
        assert learned.finished.completion_tokens
        mine = [await submit(world, "acme", f"r{n}", max_tokens=100) for n in range(4)]
        told = world.plane.intake.expected_wait_s(mine[-1].live)
        started_at = world.clock.now()
        while mine[-1].live.attempts == 0:
            await world.advance(0.05)
        came = world.clock.now() - started_at
        assert 0.75 * came < told < 1.25 * came


async def test_a_request_that_runs_is_told_no_wait() -> None:
    async with World() as world:
        world.add("a", max_running=1)
        runs, *_, waits = [await submit(world, "acme", f"r{n}", max_tokens=1_000) for n in range(8)]
        await world.advance(0.1)
        assert world.plane.intake.expected_wait_s(runs.live) == 0
        assert world.plane.intake.expected_wait_s(waits.live) > 0


async def test_tokens_per_minute_are_those_really_generated() -> None:
    async with World(tenant_default={"tokens_per_minute": 600}) as world:
        world.add("a", max_running=8)
        one = await submit(world, "acme", "one", max_tokens=1_000)
        with pytest.raises(TenantLimitReached, match="tokens_per_minute") as refused:
            await submit(world, "acme", "two")
        assert 40 < refused.value.expected_wait_s < 90
        await world.advance(0.5)
        await one.go_away()
        await world.advance(1)

        assert (await submit(world, "acme", "two", max_tokens=10)).error is None


async def test_tenants_with_limits_leave_no_trace() -> None:
    async with World(tenant_default={"running_limit": 2, "tokens_per_minute": 100_000}) as world:
        world.add("a", max_running=8)
        for n in range(30):
            done = await submit(world, f"t{n}", "r", max_tokens=5)
            await world.advance(0.2)
            assert done.finished.completion_tokens
        await world.advance(60)
        await submit(world, "last", "r", max_tokens=5)

        assert world.plane.scheduler.tenants_counted <= 31
