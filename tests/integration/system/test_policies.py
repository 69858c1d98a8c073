"""Five policies over real gRPC: each serves, each in its own order, switched while requests wait."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncStream, Completion, Finished, Priority, Scheduled, Tokens
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

POLICIES = ("fifo", "priority", "slo_aware", "cost_optimized", "adaptive")
ONE_AT_A_TIME = {"max_running": 1, "step_base_s": 0.001}


async def hold(fleet: LocalFleet, executor: LocalExecutor) -> list[AsyncStream]:
    """Fill an engine of one slot, and its lookahead, so that what comes next has to wait."""
    held = [fleet.client.generate(f"Hold {n}", max_tokens=5_000) for n in range(2)]
    for stream in held:
        await anext(stream)
    await eventually(lambda: executor.engine.load().unfinished == 2, what="the engine to be full")
    return held


async def order_of(streams: dict[str, AsyncStream]) -> list[str]:
    """Names in the order in which their first tokens come."""
    order: list[str] = []

    async def read(name: str, stream: AsyncStream) -> None:
        async for event in stream:
            if isinstance(event, Tokens) and name not in order:
                order.append(name)

    await asyncio.gather(*(read(name, stream) for name, stream in streams.items()))
    return order


@pytest.mark.parametrize("policy", POLICIES)
async def test_every_policy_serves_every_request(policy: str) -> None:
    async with LocalFleet(policy=policy) as fleet:
        for name in ("a", "b", "c"):
            await fleet.add(name, max_running=2, settings={"price_per_hour": 2.5})
        streams = [
            fleet.client.generate(
                f"Story {n}", temperature=0, max_tokens=12, priority=Priority(1 + n % 5), ttft_target=5, deadline=20
            )
            for n in range(24)
        ]
        done = await asyncio.gather(*(stream.result() for stream in streams))
        for n, each in enumerate(done):
            assert_tokens(
                each.token_ids, (await answer(f"Story {n}", Sampling(temperature=0, max_tokens=12))).token_ids
            )
            assert each.decisions[0].policy == policy
            assert each.decisions[0].reasons
        assert len({each.instance_id for each in done}) > 1


async def test_fifo_serves_in_order_of_arrival_and_priority_by_class() -> None:
    classes = ["background", "low", "normal", "high", "critical"]
    async with LocalFleet() as fleet:
        executor = await fleet.add("one", **ONE_AT_A_TIME)
        orders = {}
        for policy in ("fifo", "priority"):
            await fleet.client.set_policy(policy)
            held = await hold(fleet, executor)
            streams = {}
            for name in classes:
                streams[name] = fleet.client.generate("Next", max_tokens=3, priority=name)
                await anext(streams[name])
            for stream in held:
                await stream.cancel()
            orders[policy] = await order_of(streams)
        assert orders == {"fifo": classes, "priority": classes[::-1]}


async def test_slo_aware_serves_the_tightest_target_first() -> None:
    async with LocalFleet(policy="slo_aware") as fleet:
        executor = await fleet.add("one", **ONE_AT_A_TIME)
        held = await hold(fleet, executor)
        streams = {}
        for name, ttft in (("loose", 60.0), ("medium", 40.0), ("tight", 20.0)):
            streams[name] = fleet.client.generate("Next", max_tokens=3, ttft_target=ttft)
            await anext(streams[name])
        for stream in held:
            await stream.cancel()
        assert await order_of(streams) == ["tight", "medium", "loose"]


async def test_the_class_defaults_apply_where_no_target_was_stated() -> None:
    """The default deadline only bounds waiting: it is no target, and hides no class's own."""
    async with LocalFleet(policy="slo_aware") as fleet:
        executor = await fleet.add("one", **ONE_AT_A_TIME)
        held = await hold(fleet, executor)
        streams = {}
        for name in ("background", "high"):
            streams[name] = fleet.client.generate("Next", max_tokens=3, priority=name)
            await anext(streams[name])
        for stream in held:
            await stream.cancel()
        assert await order_of(streams) == ["high", "background"]


async def test_cost_optimized_takes_the_cheaper_instance_that_is_in_time() -> None:
    async with LocalFleet(policy="cost_optimized") as fleet:
        await fleet.add("dear", settings={"price_per_hour": 10})
        await fleet.add("cheap", settings={"price_per_hour": 1})
        done = [await fleet.client.generate(f"Story {n}", max_tokens=4).result() for n in range(6)]
        assert {each.instance_id for each in done} == {"cheap"}
        assert all(each.cost > 0 for each in done)


@pytest.mark.parametrize("policy", ["fifo", "priority"])
async def test_300_equal_requests_at_once_spread_evenly_over_3_equal_instances(policy: str) -> None:
    """All of them are placed before any of them ends: the engines hang meanwhile."""
    async with LocalFleet(policy=policy) as fleet:
        executors = [await fleet.add(name, max_running=128) for name in ("a", "b", "c")]
        for executor in executors:
            executor.engine.inject(Fault(kind=FaultKind.HANG))
        streams = [fleet.client.generate("Equal", temperature=0, max_tokens=2) for _ in range(300)]
        await asyncio.gather(*(placed(stream) for stream in streams))
        for executor in executors:
            executor.engine.clear_faults()
        assert_even(await asyncio.gather(*(stream.result() for stream in streams)))


async def placed(stream: AsyncStream) -> None:
    while not isinstance(await anext(stream), Scheduled):
        pass


@pytest.mark.parametrize("policy", ["fifo", "priority"])
async def test_equal_requests_one_after_another_spread_evenly_too(policy: str) -> None:
    """Whatever was learned of equal instances meanwhile, noise is no reason to prefer one."""
    async with LocalFleet(policy=policy) as fleet:
        for name in ("a", "b", "c"):
            await fleet.add(name, step_base_s=0.0, step_per_sequence_s=0.0)
        assert_even([await fleet.client.generate("Equal", temperature=0, max_tokens=2).result() for _ in range(100)])


def assert_even(done: list[Completion]) -> None:
    counts = Counter(each.instance_id for each in done)
    assert len(counts) == 3
    assert max(counts.values()) - min(counts.values()) <= 1, counts


async def test_switching_the_policy_with_a_full_queue_loses_nothing() -> None:
    async with LocalFleet(queue={"limit_per_model": 60}) as fleet:
        executor = await fleet.add("one", max_running=2, step_base_s=0.001)
        held = [fleet.client.generate(f"Hold {n}", max_tokens=5_000) for n in range(3)]
        for stream in held:
            await anext(stream)
        await eventually(lambda: executor.engine.load().unfinished == 3)
        streams = [
            fleet.client.generate(f"Story {n}", temperature=0, max_tokens=6, priority=Priority(1 + n % 5))
            for n in range(60)
        ]
        await asyncio.gather(*(anext(stream) for stream in streams))
        reading = [asyncio.create_task(stream.result()) for stream in streams]
        for policy in POLICIES[1:] + POLICIES[:1]:
            change = await fleet.client.set_policy(policy, reason="trying them all")
            assert (change.policy, change.reordered) == (policy, 60)
            [queue] = (await fleet.client.list_instances()).queues
            assert (queue.waiting, queue.limit) == (60, 60)
        for stream in held:
            await stream.cancel()
        for number, policy in enumerate(POLICIES * 4):  # and while it drains
            await fleet.client.set_policy(policy)
            await asyncio.wait(reading, timeout=0.01 * (number % 3))
        done = await asyncio.gather(*reading)
        for n, each in enumerate(done):
            wanted = await answer(f"Story {n}", Sampling(temperature=0, max_tokens=6))
            assert_tokens(each.token_ids, wanted.token_ids)
        status = await fleet.client.get_policy()
        assert status.policy == "adaptive"
        assert {p.name for p in status.available} >= set(POLICIES)
        assert all(p.summary for p in status.available)
        assert any(s.reason == "trying them all" for s in status.switches)


async def test_a_policy_for_comparison_works_and_is_warned_of(
    fleet: LocalFleet, caplog: pytest.LogCaptureFixture
) -> None:
    await fleet.add("one")

    change = await fleet.client.set_policy("round_robin", reason="to compare")
    done = await fleet.client.generate("Once", max_tokens=2).result()
    status = await fleet.client.get_policy()

    assert len(done.token_ids) == 2
    assert change.warning.startswith("round_robin is for comparison, not for service: it ignores load")
    assert (logging.WARNING, change.warning) in [(record.levelno, record.message) for record in caplog.records]
    warnings = {p.name: p.warning for p in status.available}
    assert warnings["round_robin"] == change.warning
    assert not any(warnings[name] for name in POLICIES)
    assert (await fleet.client.set_policy("fifo")).warning == ""


async def test_an_end_says_which_targets_were_met(fleet: LocalFleet) -> None:
    await fleet.add("one")
    stream = fleet.client.generate("Once", max_tokens=20, ttft_target=5.0, tpot_target=0.00001, deadline=30.0)
    done = await stream.result()
    assert {s.target: s.met for s in done.slo} == {"ttft": True, "tpot": False, "deadline": True}
    plain = await fleet.client.generate("Once", max_tokens=2).result()
    assert plain.slo == (), "nobody asked"


async def test_the_preferred_instance_is_taken_and_its_absence_said(fleet: LocalFleet) -> None:
    for name in ("a", "b"):
        await fleet.add(name)
    for name in ("b", "a", "b"):
        done = await fleet.client.generate("Once", max_tokens=2, preferred_instance=name).result()
        assert done.instance_id == name
    elsewhere = await fleet.client.generate("Once", max_tokens=2, preferred_instance="c").result()
    assert any("'c'" in reason or " c " in f" {reason} " for reason in elsewhere.decisions[0].reasons)


async def test_requests_only_go_where_their_model_is(fleet: LocalFleet) -> None:
    await fleet.add("a", model="alpha")
    await fleet.add("b", model="beta")
    for n in range(10):
        model = ("alpha", "beta")[n % 2]
        done = await fleet.client.generate(f"Story {n}", model=model, temperature=0, max_tokens=4).result()
        assert done.instance_id == model[0]
        wanted = await answer(f"Story {n}", Sampling(temperature=0, max_tokens=4), model=model)
        assert_tokens(done.token_ids, wanted.token_ids)


async def test_an_adapter_is_only_found_where_it_is(fleet: LocalFleet) -> None:
    await fleet.add("plain")
    await fleet.add("adapted", adapters=("dialect",))
    for _ in range(4):
        done = await fleet.client.generate("Once", adapter="dialect", temperature=0, max_tokens=8).result()
        assert done.instance_id == "adapted"
        wanted = await answer("Once", Sampling(temperature=0, max_tokens=8), adapter="dialect")
        assert_tokens(done.token_ids, wanted.token_ids)


async def test_more_room_is_used_as_it_comes(fleet: LocalFleet) -> None:
    """Requests that wait go to an instance that joins later; nothing has to be sent again."""
    await fleet.add("a", max_running=1)
    streams = [fleet.client.generate(f"Story {n}", max_tokens=150) for n in range(6)]
    for stream in streams:
        await anext(stream)
    await fleet.add("b", max_running=4)
    events = await asyncio.gather(*(_last(stream) for stream in streams))
    assert all(isinstance(event, Finished) for event in events)
    stories = [await fleet.client.explain(stream.request_id) for stream in streams]
    assert Counter(story.decisions[-1].instance_id for story in stories)["b"] >= 3


async def _last(stream: AsyncStream) -> object:
    last: object = None
    async for event in stream:
        last = event
    return last
