"""What those who watch the fleet are shown: counted as it happens, bounded, current."""

from __future__ import annotations

import asyncio

import pytest

from scheduler_svc.control.watching.fleet_statistics import DECISIONS_KEPT, FAILOVERS_KEPT
from scheduler_svc.control.watching.fleet_watch import FRESH_S, WATCHERS_LIMIT, WATCHERS_PER_CLIENT
from scheduler_svc.control.watching.rolling_counts import BUCKET_S, WINDOW_S, RollingCounts
from scheduler_svc.domain.errors import LimitReached, QueueFull
from scheduler_svc.domain.request import Priority, RequestState
from tests.unit.control.world import World


def count(counts: RollingCounts, now: float) -> None:
    for each in counts.open(now):
        each.accepted += 1


def test_counts_of_late_leave_the_window_and_stay_in_the_total() -> None:
    counts = RollingCounts(100.0)
    count(counts, 101.0)
    count(counts, 250.0)
    assert counts.last(WINDOW_S, 260.0).counts.accepted == 2
    late = 101.0 + WINDOW_S + 2 * BUCKET_S
    assert counts.last(WINDOW_S, late).counts.accepted == 1
    assert counts.since_start(late).counts.accepted == 2
    assert counts.since_start(late).span_s == pytest.approx(late - 100.0)


def test_a_stretch_is_as_long_as_it_says() -> None:
    counts = RollingCounts(0.0)
    for second in range(40):
        count(counts, second + 0.5)
    latest = counts.last(10.0, 40.0)
    assert (latest.counts.accepted, latest.span_s) == (10, 10.0)
    between = counts.last(10.0, 43.0)
    assert (between.counts.accepted, between.span_s) == (10, 13.0), "whole buckets: up to one more than asked for"


def test_a_stretch_just_after_the_start_is_short() -> None:
    counts = RollingCounts(0.0)
    count(counts, 1.0)
    assert counts.last(10.0, 2.0).span_s == 2.0


def test_years_of_counting_take_no_more_room() -> None:
    counts = RollingCounts(0.0)
    for bucket in range(10_000):
        count(counts, bucket * BUCKET_S)
    assert len(counts._buckets) == WINDOW_S / BUCKET_S + 1


def test_the_history_has_every_stretch_of_the_window_that_is_over() -> None:
    counts = RollingCounts(0.0)
    assert counts.history(4.0) == []
    count(counts, 1.0)
    count(counts, 11.0)
    count(counts, 16.0)
    assert [each.accepted for each in counts.history(18.0)] == [1, 0, 1]
    assert len(counts.history(10_000.0)) == WINDOW_S / BUCKET_S


async def test_latencies_of_requests_that_ended_are_measured() -> None:
    async with World() as world:
        world.add("a")
        done = await world.submit("done", max_tokens=5)
        await world.advance(2.0)
        assert done.finished.completion_tokens == 5
        counts = world.plane.fleet_watch.snapshot().recent.counts
        assert (counts.first_token.count, counts.per_token.count, counts.total.count) == (1, 1, 1)
        assert counts.first_token.percentile(0.5) < counts.total.percentile(0.5) <= 2.2


async def test_every_end_is_counted_and_judged() -> None:
    async with World(queue={"limit_per_model": 1}) as world:
        gone = world.add("gone")
        gone.crash()
        await world.advance(1.0)
        await world.submit("cut", priority=Priority.LOW, deadline_s=1.0, wait_for_instance=True)
        with pytest.raises(QueueFull):
            await world.submit("refused", priority=Priority.BACKGROUND, wait_for_instance=True)
        await world.advance(2.0)
        world.add("a")
        done = await world.submit("done", max_tokens=5, priority=Priority.CRITICAL)
        await world.advance(2.0)
        assert done.finished.completion_tokens
        counts = world.plane.fleet_watch.snapshot().since_start.counts
        assert (counts.accepted, counts.refused, counts.output_tokens) == (2, 1, 5)
        assert counts.ended == {RequestState.EXPIRED: 1, RequestState.FINISHED: 1}
        assert counts.met == {Priority.CRITICAL: 1}
        assert counts.missed == {Priority.LOW: 1, Priority.BACKGROUND: 1}


async def test_decisions_and_failovers_are_remembered_up_to_a_bound_the_newest_first() -> None:
    async with World(record={"requests": 1}) as world:
        world.add("a", max_running=200)
        for number in range(DECISIONS_KEPT + 20):
            await world.submit(f"r{number}", max_tokens=400)
        await world.advance(1.0)
        taken = world.plane.fleet_watch.snapshot()
        assert len(taken.decisions) == DECISIONS_KEPT
        assert taken.decisions[0].key.request_id == f"r{DECISIONS_KEPT + 19}"
        assert taken.running == DECISIONS_KEPT + 20
        world.add("b", max_running=200)
        world.executors["a"].crash()
        await world.advance(2.0)
        taken = world.plane.fleet_watch.snapshot()
        assert len(taken.failovers) == FAILOVERS_KEPT
        assert taken.since_start.counts.failovers == DECISIONS_KEPT + 20
        assert {each.cause.value for each in taken.failovers} == {"lost"}
        await world.advance(10.0)


async def test_a_snapshot_is_shared_while_it_is_fresh() -> None:
    async with World() as world:
        watch = world.plane.fleet_watch
        first = watch.snapshot()
        assert watch.snapshot() is first
        await world.advance(2 * FRESH_S)
        assert watch.snapshot() is not first


async def test_watchers_are_bounded_and_leaving_makes_room() -> None:
    async with World() as world:
        watch = world.plane.fleet_watch
        watching = [watch.snapshots(1.0, client=f"c{n}") for n in range(WATCHERS_LIMIT)]
        for each in watching:
            await anext(each)
        with pytest.raises(LimitReached, match="watchers"):
            await anext(watch.snapshots(1.0, client="one more"))
        await watching[0].aclose()
        assert watch.watchers == WATCHERS_LIMIT - 1
        one_more = watch.snapshots(1.0, client="one more")
        assert (await anext(one_more)).policy == "fifo"
        for each in (*watching, one_more):
            await each.aclose()
        assert watch.watchers == 0


async def test_one_client_cannot_take_every_place() -> None:
    async with World() as world:
        watch = world.plane.fleet_watch
        watching = [watch.snapshots(1.0, client="greedy") for _ in range(WATCHERS_PER_CLIENT)]
        for each in watching:
            await anext(each)
        with pytest.raises(LimitReached, match="for one client"):
            await anext(watch.snapshots(1.0, client="greedy"))
        other = watch.snapshots(1.0, client="other")
        assert (await anext(other)).policy == "fifo"
        for each in (*watching, other):
            await each.aclose()
        assert watch.watchers == 0


async def test_one_that_comes_back_late_is_shown_what_is_current() -> None:
    async with World() as world:
        snapshots = world.plane.fleet_watch.snapshots(1.0, client="c")
        await anext(snapshots)
        world.add("a")
        for number in range(3):
            await world.submit(f"r{number}", max_tokens=2)
            await world.advance(5.0)
        # Nothing of the time it was away waits for it: one sleep of the interval, then the latest.
        waiting = asyncio.ensure_future(anext(snapshots))
        await world.advance(1.5)
        assert (await waiting).since_start.counts.ended[RequestState.FINISHED] == 3
        await snapshots.aclose()
