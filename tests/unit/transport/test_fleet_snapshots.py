"""The fleet at one moment on the wire: nothing is forgotten, and what many watch is converted once."""

from __future__ import annotations

from collections import Counter

import pytest
from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import admin_pb2, common_pb2
from sage_wire import durations
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.watching.fleet_statistics import DECISIONS_KEPT, RecentDecision, RecentFailover
from scheduler_svc.control.watching.fleet_watch import FleetSnapshot
from scheduler_svc.control.watching.rolling_counts import Counts, Stretch
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.errors import InvalidRequest
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.policies.policy import PolicySwitch
from scheduler_svc.domain.queue import QueueView
from scheduler_svc.domain.request import Priority, RequestKey, RequestState
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.transport import fleet_snapshots, prefill_decode
from scheduler_svc.transport.instances import InstanceViews
from tests.unit.transport.completeness import unset

NOW = 100.0
KEY = RequestKey(tenant="blue", request_id="r")


def a_decision(number: int = 0) -> RecentDecision:
    return RecentDecision(
        at=NOW - 1 - number,
        key=RequestKey(tenant="blue", request_id=f"r{number}"),
        policy="fifo",
        phase=Phase.DECODING,
        instance_id="d",
        prefill_instance_id="p",
        waited_s=0.5,
        reason="earliest predicted finish",
    )


def a_stretch(span_s: float) -> Stretch:
    counts = Counts(
        accepted=9,
        refused=1,
        ended=Counter(dict.fromkeys(RequestState, 2)),
        failovers=3,
        output_tokens=40,
        met=Counter({Priority.HIGH: 4}),
        missed=Counter({Priority.HIGH: 1, Priority.BACKGROUND: 2}),
    )
    for latencies in (counts.first_token, counts.per_token, counts.total):
        for took_s in (0.1, 0.2, 0.3, 10.0):
            latencies.note(took_s)
    return Stretch(span_s=span_s, counts=counts)


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(SchedulerSettings(policy="fifo"), PolicyCatalogue())


def taken(scheduler: Scheduler, decisions: int = 1) -> FleetSnapshot:
    if scheduler.find_instance("a") is None:
        scheduler.register(InstanceSpec(instance_id="a", model="m", engine_start_id="1"), NOW)
    return FleetSnapshot(
        taken_at=NOW,
        uptime_s=60.0,
        policy="adaptive",
        delegate="fifo",
        latest_switch=PolicySwitch(from_policy="fifo", to_policy="adaptive", reason="said so", at=NOW - 5),
        instances=tuple(scheduler.instances()),
        queues={"m": QueueView(waiting=2, limit=10, by_priority={Priority.LOW: 2})},
        running=4,
        waiting=2,
        latest=a_stretch(12.0),
        recent=a_stretch(300.0),
        since_start=a_stretch(60.0),
        history=[a_stretch(5.0).counts, Counts()],
        decisions=tuple(a_decision(number) for number in range(decisions)),
        failovers=(RecentFailover(at=NOW - 2, key=KEY, cause=FailoverCause.LOST, why="its lease ended"),),
    )


def test_nothing_is_forgotten(scheduler: Scheduler) -> None:
    wire = fleet_snapshots.snapshot(taken(scheduler), scheduler, 7, InstanceViews())
    assert unset(wire) == set()
    assert (wire.epoch, wire.requests_running, wire.requests_waiting) == (7, 4, 2)
    assert unset(wire.latest_switch) == set()
    assert unset(wire.decisions[0]) == set()
    assert durations.from_wire(wire.decisions[0].ago) == 1.0
    assert unset(wire.failovers[0]) == set()
    assert (wire.failovers[0].cause, durations.from_wire(wire.failovers[0].ago)) == ("lost", 2.0)
    assert unset(wire.recent) == set()
    assert (wire.recent.finished, wire.recent.failed, wire.recent.cancelled, wire.recent.expired) == (2, 2, 2, 2)
    assert [durations.from_wire(each.span) for each in (wire.latest, wire.recent, wire.since_start)] == [12, 300, 60]


def test_latencies_are_percentiles_rounded_up_by_a_tenth_at_most(scheduler: Scheduler) -> None:
    wire = fleet_snapshots.snapshot(taken(scheduler), scheduler, 7, InstanceViews())
    found = wire.recent.time_to_first_token
    assert (unset(found), found.requests) == (set(), 4)
    for percentile, wanted in ((found.p50, 0.2), (found.p95, 10.0), (found.p99, 10.0)):
        assert wanted <= durations.from_wire(percentile) <= 1.1 * wanted


def test_a_stretch_without_a_first_token_has_no_time_to_it(scheduler: Scheduler) -> None:
    wire = fleet_snapshots.snapshot(taken(scheduler), scheduler, 7, InstanceViews())
    busy, idle = wire.history
    assert unset(busy) == set()
    assert (busy.accepted, busy.ended, busy.output_tokens) == (9, 2 * len(RequestState), 40)
    assert idle == admin_pb2.FleetStretch()


def test_attainment_is_by_class_the_most_urgent_first(scheduler: Scheduler) -> None:
    wire = fleet_snapshots.snapshot(taken(scheduler), scheduler, 7, InstanceViews())
    assert [(each.priority, each.met, each.missed) for each in wire.recent.slo] == [
        (common_pb2.PRIORITY_HIGH, 4, 1),
        (common_pb2.PRIORITY_BACKGROUND, 0, 2),
    ]


def test_a_snapshot_shows_a_bounded_number_of_pairs(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def state(_: Scheduler, now: float, most_pairs: int) -> admin_pb2.GetPrefillDecodeResponse:
        asked.append(most_pairs)
        return admin_pb2.GetPrefillDecodeResponse()

    monkeypatch.setattr(prefill_decode, "state", state)
    fleet_snapshots.snapshot(taken(scheduler), scheduler, 7, InstanceViews())
    assert asked == [prefill_decode.PAIRS_IN_SNAPSHOT]


def test_what_many_watch_is_converted_once_and_cut_for_each(scheduler: Scheduler) -> None:
    conversion = fleet_snapshots.SnapshotConversion(scheduler, 7, InstanceViews())
    shared = taken(scheduler, decisions=10)
    assert len(conversion.response(shared, 3, with_requests=True).snapshot.decisions) == 3
    scheduler.instances()[0].state_reason = "something happened since"
    again = conversion.response(shared, 64, with_requests=True).snapshot
    assert len(again.decisions) == 10
    assert again.instances[0].state_reason != "something happened since"


def test_only_some_are_told_which_requests_decisions_are_about(scheduler: Scheduler) -> None:
    conversion = fleet_snapshots.SnapshotConversion(scheduler, 7, InstanceViews())
    shared = taken(scheduler, decisions=2)
    hidden = conversion.response(shared, 64, with_requests=False).snapshot
    assert not any(decision.tenant or decision.request_id for decision in hidden.decisions)
    assert not any(failover.tenant or failover.request_id for failover in hidden.failovers)
    assert not any(decision.reason for decision in hidden.decisions), "a reason may quote a session"
    assert not any(failover.reason for failover in hidden.failovers)
    shown = conversion.response(shared, 64, with_requests=True).snapshot
    assert [bool(decision.tenant and decision.request_id) for decision in shown.decisions] == [True, True]
    assert shown.failovers
    assert all(failover.tenant and failover.request_id for failover in shown.failovers)


@pytest.mark.parametrize(("asked", "given"), [(None, 20), (0, 0), (5, 5), (1_000, DECISIONS_KEPT)])
def test_how_many_decisions_are_shown(asked: int | None, given: int) -> None:
    assert fleet_snapshots.decisions(admin_pb2.WatchFleetRequest(recent_decisions=asked)) == given


def test_the_interval_has_a_default_and_bounds() -> None:
    assert fleet_snapshots.interval_s(admin_pb2.WatchFleetRequest()) == 1.0
    quick = admin_pb2.WatchFleetRequest(interval=Duration(nanos=250_000_000))
    assert fleet_snapshots.interval_s(quick) == 0.25
    for seconds in (0, 61):
        with pytest.raises(InvalidRequest, match="is not between"):
            fleet_snapshots.interval_s(admin_pb2.WatchFleetRequest(interval=Duration(seconds=seconds)))
