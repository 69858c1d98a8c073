"""Encodes the request to watch the fleet and decodes its snapshots."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2, common_pb2
from sage_client import _fleet_snapshot as v
from sage_client._decode import seconds, word
from sage_client._decode_admin import instance, policy_switch, queue
from sage_client._decode_prefill_decode import status
from sage_client._enums import Phase, Priority

_CLASSES = frozenset(int(priority) for priority in Priority)


def request(interval_s: float, recent_decisions: int) -> admin_pb2.WatchFleetRequest:
    """Encode the request to watch the fleet."""
    wire = admin_pb2.WatchFleetRequest(recent_decisions=recent_decisions)
    wire.interval.FromNanoseconds(round(interval_s * 1e9))
    return wire


def snapshot(message: admin_pb2.FleetSnapshot) -> v.FleetSnapshot:
    """Decode a snapshot."""
    return v.FleetSnapshot(
        epoch=message.epoch,
        uptime_s=seconds(message.uptime),
        policy=message.policy,
        delegate=message.delegate,
        latest_switch=policy_switch(message.latest_switch) if message.HasField("latest_switch") else None,
        instances=tuple(instance(each) for each in message.instances),
        queues=tuple(queue(each) for each in message.queues),
        requests_running=message.requests_running,
        requests_waiting=message.requests_waiting,
        latest=_counts(message.latest),
        recent=_counts(message.recent),
        since_start=_counts(message.since_start),
        prefill_decode=status(message.prefill_decode),
        decisions=tuple(_decision(each) for each in message.decisions),
        failovers=tuple(_failover(each) for each in message.failovers),
        history=tuple(_stretch(each) for each in message.history),
    )


def _counts(message: admin_pb2.FleetCounts) -> v.FleetCounts:
    return v.FleetCounts(
        span_s=seconds(message.span),
        accepted=message.accepted,
        refused=message.refused,
        finished=message.finished,
        failed=message.failed,
        cancelled=message.cancelled,
        expired=message.expired,
        failovers=message.failovers,
        output_tokens=message.output_tokens,
        slo=tuple(
            v.SloAttainment(priority=Priority(each.priority), met=each.met, missed=each.missed)
            for each in message.slo
            if each.priority in _CLASSES
        ),
        time_to_first_token=_percentiles(message.HasField("time_to_first_token"), message.time_to_first_token),
        time_per_output_token=_percentiles(message.HasField("time_per_output_token"), message.time_per_output_token),
        total=_percentiles(message.HasField("total"), message.total),
    )


def _percentiles(present: bool, found: admin_pb2.Percentiles) -> v.Percentiles | None:
    if not present:
        return None
    return v.Percentiles(
        requests=found.requests, p50_s=seconds(found.p50), p95_s=seconds(found.p95), p99_s=seconds(found.p99)
    )


def _stretch(message: admin_pb2.FleetStretch) -> v.FleetStretch:
    p95 = message.time_to_first_token_p95 if message.HasField("time_to_first_token_p95") else None
    return v.FleetStretch(
        accepted=message.accepted,
        ended=message.ended,
        output_tokens=message.output_tokens,
        time_to_first_token_p95_s=seconds(p95) if p95 is not None else None,
    )


def _decision(message: admin_pb2.RecentDecision) -> v.RecentDecision:
    return v.RecentDecision(
        ago_s=seconds(message.ago),
        request_id=message.request_id,
        tenant=message.tenant,
        policy=message.policy,
        phase=word(Phase, common_pb2.Phase.DESCRIPTOR, "PHASE_", message.phase),
        instance_id=message.instance_id,
        prefill_instance_id=message.prefill_instance_id,
        waited_s=seconds(message.waited),
        reason=message.reason,
    )


def _failover(message: admin_pb2.RecentFailover) -> v.RecentFailover:
    return v.RecentFailover(
        ago_s=seconds(message.ago),
        request_id=message.request_id,
        tenant=message.tenant,
        cause=message.cause,
        reason=message.reason,
    )
