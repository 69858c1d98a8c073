"""``WatchFleet``: the fleet as it is, again and again, whoever watches and however slowly they read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc
from sage_client import (
    FleetSnapshot,
    InstanceState,
    InvalidRequestError,
    LimitReachedError,
    Phase,
    Priority,
    QueueFullError,
    RequestCancelledError,
    SplitMode,
    Tokens,
    UnavailableError,
)
from scheduler_svc.transport import take_limit
from scheduler_svc.transport.fleet_snapshots import SnapshotConversion
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.system.refusals import end_of
from tests.support.eventually import eventually


async def first(snapshots: AsyncGenerator[FleetSnapshot, None]) -> FleetSnapshot:
    """One snapshot, and away."""
    try:
        return await anext(snapshots)
    finally:
        await snapshots.aclose()


async def test_a_snapshot_shows_instances_queues_policy_and_prefill_decode(fleet: LocalFleet) -> None:
    await fleet.add("one")
    await fleet.add("two", settings={"role": "hybrid"})
    await fleet.client.drain_instance("two", reason="maintenance")
    await fleet.client.set_policy("priority", reason="as told")
    await fleet.client.set_policy("priority", reason="again, which is no switch")
    seen = await first(fleet.client.watch_fleet())
    assert [(i.instance_id, i.state) for i in seen.instances] == [
        ("one", InstanceState.READY),
        ("two", InstanceState.DRAINED),
    ]
    assert "maintenance" in seen.instances[1].state_reason
    assert (seen.policy, seen.delegate) == ("priority", "")
    assert seen.latest_switch is not None
    assert (seen.latest_switch.to_policy, seen.latest_switch.reason) == ("priority", "as told")
    assert seen.prefill_decode.config.mode is SplitMode.NEVER
    assert seen.uptime_s > 0
    assert seen.epoch == fleet.scheduler.control.epoch


async def test_it_counts_what_happened_and_shows_the_latest_decisions(fleet: LocalFleet) -> None:
    await fleet.add("one")
    for name in ("a", "b", "c"):
        await fleet.client.generate("Once", max_tokens=3, priority="high", request_id=name).result()
    seen = await first(fleet.client.watch_fleet(recent_decisions=2))
    assert (seen.since_start.accepted, seen.since_start.finished, seen.since_start.output_tokens) == (3, 3, 9)
    assert seen.recent.finished == seen.latest.finished == 3
    [attainment] = seen.recent.slo
    assert (attainment.priority, attainment.met, attainment.missed) == (Priority.HIGH, 3, 0)
    assert [decision.request_id for decision in seen.decisions] == ["c", "b"], "the newest, newest first"
    newest = seen.decisions[0]
    assert (newest.instance_id, newest.prefill_instance_id, newest.phase) == ("one", "", Phase.HYBRID)
    assert newest.reason.startswith("earliest predicted finish")
    assert (seen.requests_running, seen.requests_waiting) == (0, 0)


def _holds(executor: LocalExecutor, requests: int) -> bool:
    return executor.engine.load().unfinished == requests


async def test_refused_requests_missed_their_targets_and_failovers_are_told() -> None:
    async with LocalFleet(queue={"limit_per_model": 1}) as fleet:
        executor = await fleet.add("one", max_running=1)
        held = []
        for placed in (1, 2, 2):  # one after the other: one place in the queue is all there is
            held.append(fleet.client.generate("Hold", max_tokens=4_000, priority="low"))
            await anext(held[-1])
            await eventually(partial(_holds, executor, placed))
        with pytest.raises(QueueFullError):
            await fleet.client.generate("Too many", max_tokens=1, priority="low").result()
        seen = await first(fleet.client.watch_fleet())
        assert (seen.requests_running, seen.requests_waiting) == (2, 1)
        assert (seen.recent.accepted, seen.recent.refused) == (3, 1)
        assert [(each.priority, each.met, each.missed) for each in seen.recent.slo] == [(Priority.LOW, 0, 1)]
        [queue] = seen.queues
        assert queue.waiting_by_priority["low"] == 1

        moved = held[0].request_id
        await fleet.add("two", max_running=4)
        executor.terminate()
        executor.terminate()
        told = fleet.scheduler.control.fleet_watch
        await eventually(lambda: moved in [each.key.request_id for each in told.snapshot().failovers])
        seen = await first(fleet.client.watch_fleet())
        assert moved in [each.request_id for each in seen.failovers]
        assert seen.recent.failovers >= 1
        for stream in held:
            await stream.cancel()


async def test_snapshots_keep_coming(fleet: LocalFleet) -> None:
    await fleet.add("one")
    snapshots = fleet.client.watch_fleet(interval=0.25)
    uptimes = [(await anext(snapshots)).uptime_s for _ in range(3)]
    assert uptimes == sorted(set(uptimes))
    assert all(later - earlier >= 0.2 for earlier, later in pairwise(uptimes))


@pytest.mark.parametrize("interval", [0.01, 61.0])
async def test_an_interval_out_of_range_is_refused_by_name(fleet: LocalFleet, interval: float) -> None:
    with pytest.raises(InvalidRequestError, match="between") as refused:
        await first(fleet.client.watch_fleet(interval=interval))
    assert [violation.field for violation in refused.value.violations] == ["interval"]


async def test_watchers_are_bounded_and_who_leaves_makes_room(fleet: LocalFleet) -> None:
    watch = fleet.scheduler.control.fleet_watch
    watching = [fleet.client.watch_fleet(interval=60.0) for _ in range(8)]
    for snapshots in watching:
        await anext(snapshots)
    assert watch.watchers == 8
    with pytest.raises(LimitReachedError, match="bound of 8 watchers of the fleet for one client"):
        await first(fleet.client.watch_fleet())
    await watching[0].aclose()
    await eventually(lambda: watch.watchers == 7)
    assert (await first(fleet.client.watch_fleet())).policy


async def test_a_watcher_that_does_not_read_holds_nobody_up(fleet: LocalFleet) -> None:
    await fleet.add("one")
    call = admin_pb2_grpc.AdminServiceStub(fleet.channel()).WatchFleet(admin_pb2.WatchFleetRequest())
    await eventually(lambda: fleet.scheduler.control.fleet_watch.watchers == 1)
    for number in range(8):
        await fleet.client.generate("Once", max_tokens=2, request_id=f"n{number}").result()
    watching = fleet.client.watch_fleet(interval=0.25)
    while (await anext(watching)).since_start.finished < 8:
        pass
    call.cancel()


async def test_a_watcher_that_takes_nothing_loses_its_place(fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(take_limit, "TAKE_LIMIT_S", 0.3)
    small = SnapshotConversion.response

    def large(self: SnapshotConversion, *of: Any, **options: Any) -> admin_pb2.WatchFleetResponse:
        response = small(self, *of, **options)
        response.snapshot.policy = "x" * 3 * 1024 * 1024  # more than a stream holds for a client that does not read
        return response

    monkeypatch.setattr(SnapshotConversion, "response", large)
    call = admin_pb2_grpc.AdminServiceStub(fleet.channel()).WatchFleet(admin_pb2.WatchFleetRequest())
    await eventually(lambda: fleet.scheduler.control.fleet_watch.watchers == 1)
    await eventually(lambda: fleet.scheduler.control.fleet_watch.watchers == 0)
    assert not call.done(), "the message that waits is in the way of a status"
    assert (await end_of(call)).reason == "LIMIT_REACHED"


async def test_the_schedulers_end_ends_the_watching(fleet: LocalFleet) -> None:
    snapshots = fleet.client.watch_fleet(interval=60.0)
    await anext(snapshots)
    await fleet.stop_scheduler()
    with pytest.raises((UnavailableError, RequestCancelledError)):
        await anext(snapshots)


async def test_who_waits_while_the_client_is_closed_is_told(fleet: LocalFleet) -> None:
    snapshots = fleet.client.watch_fleet(interval=60.0)
    await anext(snapshots)
    waiting = asyncio.ensure_future(anext(snapshots))
    await asyncio.sleep(0)  # it begins to wait
    await fleet.client.close()
    with pytest.raises(UnavailableError):
        async with asyncio.timeout(10):
            await waiting


async def test_a_request_that_is_cancelled_before_it_was_accepted_is_just_cancelled(fleet: LocalFleet) -> None:
    await fleet.add("one")
    for detached in (False, True):
        stream = fleet.client.generate("Once", max_tokens=4_000, detached=detached)
        answer = await stream.cancel("changed my mind")
        assert answer.cancelled
        with pytest.raises(RequestCancelledError):
            await stream.result()
        await eventually(lambda: not len(fleet.scheduler.control.requests))


async def test_cancelling_it_later_still_works(fleet: LocalFleet) -> None:
    await fleet.add("one")
    stream = fleet.client.generate("Once", max_tokens=4_000)
    while not isinstance(await anext(stream), Tokens):
        pass
    assert (await stream.cancel()).cancelled
