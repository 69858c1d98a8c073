"""The fleet at one moment as a FleetSnapshot message, and the checks of WatchFleet's request."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.control.watching.fleet_statistics import DECISIONS_KEPT, RecentDecision, RecentFailover
from scheduler_svc.control.watching.fleet_watch import FleetSnapshot
from scheduler_svc.control.watching.latencies import Latencies
from scheduler_svc.control.watching.rolling_counts import Counts, Stretch
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.domain.policies.policy import PolicySwitch
from scheduler_svc.domain.queue import QueueView
from scheduler_svc.domain.request import Priority, RequestState
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import prefill_decode
from scheduler_svc.transport.enums import PHASE_TO_WIRE, PRIORITY_TO_WIRE
from scheduler_svc.transport.instances import InstanceViews

INTERVAL_S = 1.0  # between two snapshots, where the watcher names none
INTERVAL_MIN_S = 0.25
INTERVAL_MAX_S = 60.0
DECISIONS = 20  # recent decisions in a snapshot, where the watcher names no number


def interval_s(request: admin_pb2.WatchFleetRequest) -> float:
    """Return the seconds between two snapshots.  Raises InvalidRequest if out of range."""
    if not request.HasField("interval"):
        return INTERVAL_S
    asked_s = durations.from_wire(request.interval)
    if not INTERVAL_MIN_S <= asked_s <= INTERVAL_MAX_S:
        problem = f"{asked_s:g} s is not between {INTERVAL_MIN_S:g} s and {INTERVAL_MAX_S:g} s"
        raise InvalidRequest([FieldViolation(field="interval", description=problem)])
    return asked_s


def decisions(request: admin_pb2.WatchFleetRequest) -> int:
    """Return how many recent decisions a watcher wants in each snapshot, at most DECISIONS_KEPT."""
    return min(request.recent_decisions if request.HasField("recent_decisions") else DECISIONS, DECISIONS_KEPT)


REQUEST_FIELDS = ("request_id", "tenant", "reason")
"""Fields of a decision and of a failover that tell something of the request."""


class SnapshotConversion:
    """Convert each snapshot once, however many watch."""

    def __init__(self, scheduler: Scheduler, epoch: int, views: InstanceViews) -> None:
        self._scheduler = scheduler
        self._epoch = epoch
        self._views = views
        self._latest: tuple[FleetSnapshot, admin_pb2.FleetSnapshot] | None = None

    def response(self, taken: FleetSnapshot, decisions: int, *, with_requests: bool) -> admin_pb2.WatchFleetResponse:
        """Return the message for a watcher that wants the newest ``decisions`` decisions.

        ``taken`` is the snapshot of this moment; the conversion of the latest one is kept.  ``with_requests``: say
        which requests decisions and failovers are about, and the reasons, which may quote the requests.
        """
        if self._latest is None or self._latest[0] is not taken:
            self._latest = taken, snapshot(taken, self._scheduler, self._epoch, self._views)
        response = admin_pb2.WatchFleetResponse(snapshot=self._latest[1])
        del response.snapshot.decisions[decisions:]
        if not with_requests:
            for about in (*response.snapshot.decisions, *response.snapshot.failovers):
                for name in REQUEST_FIELDS:
                    about.ClearField(name)
        return response


def snapshot(taken: FleetSnapshot, scheduler: Scheduler, epoch: int, views: InstanceViews) -> admin_pb2.FleetSnapshot:
    """Convert a snapshot.  Ages are relative to the moment at which it was taken."""
    now = taken.taken_at
    wire = admin_pb2.FleetSnapshot(
        epoch=epoch,
        uptime=durations.to_wire(taken.uptime_s),
        policy=taken.policy,
        delegate=taken.delegate,
        latest_switch=policy_switch(taken.latest_switch, now) if taken.latest_switch is not None else None,
        queues=[queue_info(model, queue) for model, queue in sorted(taken.queues.items())],
        requests_running=taken.running,
        requests_waiting=taken.waiting,
        latest=_counts(taken.latest),
        recent=_counts(taken.recent),
        since_start=_counts(taken.since_start),
        prefill_decode=prefill_decode.state(scheduler, now, prefill_decode.PAIRS_IN_SNAPSHOT),
        decisions=[_decision(each, now) for each in taken.decisions],
        failovers=[_failover(each, now) for each in taken.failovers],
        history=[_stretch(each) for each in taken.history],
    )
    for each in taken.instances:
        views.fill(wire.instances.add(), each, now)
    return wire


def queue_info(model: str, queue: QueueView) -> admin_pb2.QueueInfo:
    """Convert a model's queue."""
    return admin_pb2.QueueInfo(
        model=model,
        waiting=queue.waiting,
        limit=queue.limit,
        waiting_by_priority={p.name.lower(): n for p, n in queue.by_priority.items()},
    )


def policy_switch(switch: PolicySwitch, now: float) -> admin_pb2.PolicySwitch:
    """Convert a change of policy.  ``now``: seconds on the control clock."""
    return admin_pb2.PolicySwitch(
        from_policy=switch.from_policy,
        to_policy=switch.to_policy,
        reason=switch.reason,
        ago=_ago(switch.at, now),
    )


def _counts(stretch: Stretch) -> admin_pb2.FleetCounts:
    counts = stretch.counts
    return admin_pb2.FleetCounts(
        span=durations.to_wire(stretch.span_s),
        accepted=counts.accepted,
        refused=counts.refused,
        finished=counts.ended[RequestState.FINISHED],
        failed=counts.ended[RequestState.FAILED],
        cancelled=counts.ended[RequestState.CANCELLED],
        expired=counts.ended[RequestState.EXPIRED],
        failovers=counts.failovers,
        output_tokens=counts.output_tokens,
        slo=[
            admin_pb2.SloAttainment(priority=PRIORITY_TO_WIRE[p], met=counts.met[p], missed=counts.missed[p])
            for p in Priority
            if counts.met[p] or counts.missed[p]
        ],
        time_to_first_token=_percentiles(counts.first_token),
        time_per_output_token=_percentiles(counts.per_token),
        total=_percentiles(counts.total),
    )


def _percentiles(found: Latencies) -> admin_pb2.Percentiles | None:
    if not found.count:
        return None
    p50, p95, p99 = (durations.to_wire(found.percentile(share)) for share in (0.5, 0.95, 0.99))
    return admin_pb2.Percentiles(requests=found.count, p50=p50, p95=p95, p99=p99)


def _stretch(counts: Counts) -> admin_pb2.FleetStretch:
    first_token = counts.first_token
    return admin_pb2.FleetStretch(
        accepted=counts.accepted,
        ended=counts.ended.total(),
        output_tokens=counts.output_tokens,
        time_to_first_token_p95=durations.to_wire(first_token.percentile(0.95)) if first_token.count else None,
    )


def _decision(made: RecentDecision, now: float) -> admin_pb2.RecentDecision:
    return admin_pb2.RecentDecision(
        ago=_ago(made.at, now),
        request_id=made.key.request_id,
        tenant=made.key.tenant,
        policy=made.policy,
        phase=PHASE_TO_WIRE[made.phase],
        instance_id=made.instance_id,
        prefill_instance_id=made.prefill_instance_id,
        waited=durations.to_wire(made.waited_s),
        reason=made.reason,
    )


def _failover(failover: RecentFailover, now: float) -> admin_pb2.RecentFailover:
    return admin_pb2.RecentFailover(
        ago=_ago(failover.at, now),
        request_id=failover.key.request_id,
        tenant=failover.key.tenant,
        cause=failover.cause.value,
        reason=failover.why,
    )


def _ago(at: float, now: float) -> Duration:
    return durations.to_wire(now - at)
