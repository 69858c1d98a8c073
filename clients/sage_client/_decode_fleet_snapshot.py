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
