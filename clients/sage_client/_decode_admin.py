"""Decodes the messages of AdminService into values of the SDK."""

from __future__ import annotations

from google.rpc import error_details_pb2, status_pb2

from sage.controlplane.v1 import admin_pb2, common_pb2, inference_pb2
from sage_client import _fleet_view as v
from sage_client._decode import decision, parallelism, request_state, role, seconds, slo_result, word
from sage_client._decode_prefill_decode import role_change
from sage_client._enums import InstanceRole, InstanceState, Priority, TimeUse


def encode_role(role: InstanceRole | str) -> common_pb2.InstanceRole.ValueType:
    """Encode a role.

    Raises:
        ValueError: the role does not exist; the message lists those that do.
    """
    try:
        if (known := InstanceRole(role)) is not InstanceRole.UNKNOWN:
            return common_pb2.InstanceRole.Value(f"INSTANCE_ROLE_{known.name}")
    except ValueError:
        pass
    known_names = ", ".join(each.value for each in InstanceRole if each is not InstanceRole.UNKNOWN)
    raise ValueError(f"unknown role {role!r}; known roles: {known_names}")


def fleet(message: admin_pb2.ListInstancesResponse) -> v.FleetView:
    """Decode the list of instances and queues."""
    return v.FleetView(
        instances=tuple(instance(each) for each in message.instances),
        queues=tuple(queue(each) for each in message.queues),
        decisions=tuple(instance_decision(each) for each in message.decisions),
    )


def instance_decision(m: admin_pb2.InstanceDecision) -> v.InstanceDecision:
    """Decode what operators decided about an instance."""
    return v.InstanceDecision(
        instance_id=m.instance_id,
        drained=m.drained,
        drain_reason=m.drain_reason,
        role=role(m.role) if m.role != common_pb2.INSTANCE_ROLE_UNSPECIFIED else None,
        not_kept=m.not_kept,
    )


def instance(m: admin_pb2.Instance) -> v.Instance:
    """Decode an instance."""
    return v.Instance(
        instance_id=m.instance_id,
        model=m.model,
        revision=m.revision,
        role=role(m.role),
        state=word(InstanceState, common_pb2.InstanceState.DESCRIPTOR, "INSTANCE_STATE_", m.state),
        state_reason=m.state_reason,
        state_age_s=seconds(m.state_age),
        progress=m.progress if m.HasField("progress") else None,
        engine=m.engine,
        engine_version=m.engine_version,
        software_version=m.software_version,
        parallelism=parallelism(m.parallelism_config),
        max_running=m.max_running,
        max_model_len=m.max_model_len,
        kv_capacity_tokens=m.kv_capacity_tokens,
        kv_used_tokens=m.kv_used_tokens,
        kv_reserved_tokens=m.kv_reserved_tokens,
        running=m.running,
        waiting=m.waiting,
        assigned=m.assigned,
        prompt_tokens_per_s=m.prompt_tokens_per_s,
        generation_tokens_per_s=m.generation_tokens_per_s,
        iterations=m.iterations,
        heartbeat_age_s=seconds(m.heartbeat_age),
        prefix_queries_tokens=m.prefix_queries_tokens,
        prefix_hits_tokens=m.prefix_hits_tokens,
        gpu_memory_used_bytes=m.gpu_memory_used_bytes,
        gpu_memory_bytes=m.gpu_memory_bytes,
        known_wait=m.known_wait,
        kv_pulls=m.kv_pulls,
        kv_pulls_failed=m.kv_pulls_failed,
        kv_leases_expired=m.kv_leases_expired,
        device_group=m.device_group,
        wake_s=seconds(m.wake_time) if m.HasField("wake_time") else None,
        price_per_hour=m.price_per_hour,
        adapters=tuple(m.adapters),
        location=v.Location(host=m.location.host, rack=m.location.rack, zone=m.location.zone),
        labels=dict(m.labels),
        decision=instance_decision(m.decision) if m.HasField("decision") else None,
        role_change=role_change(m.role_change) if m.HasField("role_change") else None,
    )


def queue(message: admin_pb2.QueueInfo) -> v.QueueInfo:
    """Decode a model's queue."""
    return v.QueueInfo(
        model=message.model,
        waiting=message.waiting,
        limit=message.limit,
        waiting_by_priority=dict(message.waiting_by_priority),
    )


def policy_status(message: admin_pb2.GetPolicyResponse) -> v.PolicyStatus:
    """Decode the current policy and the available ones."""
    return v.PolicyStatus(
        policy=message.policy,
        delegate=message.delegate,
        available=tuple(
            v.PolicyInfo(name=each.name, summary=each.summary, warning=each.warning) for each in message.available
        ),
        switches=tuple(policy_switch(each) for each in message.switches),
        configured=message.configured,
        decided=message.decided,
        not_kept=message.not_kept,
    )


def policy_switch(message: admin_pb2.PolicySwitch) -> v.PolicySwitch:
    """Decode a past switch of the policy."""
    return v.PolicySwitch(
        from_policy=message.from_policy,
        to_policy=message.to_policy,
        reason=message.reason,
        ago_s=seconds(message.ago),
    )


def policy_change(message: admin_pb2.SetPolicyResponse) -> v.PolicyChange:
    """Decode the result of setting the policy."""
    return v.PolicyChange(
        policy=message.policy,
        previous=message.previous,
        reordered=message.reordered,
        warning=message.warning,
        not_kept=message.not_kept,
    )


def shadow_policy(message: admin_pb2.GetShadowPolicyResponse) -> v.ShadowPolicy | None:
    """Decode the shadow policy; None if there is none."""
    if not message.HasField("shadow"):
        return None
    m = message.shadow
    return v.ShadowPolicy(
        policy=m.policy,
        delegate=m.delegate,
        in_force=m.in_force,
        age_s=seconds(m.age),
        compared=m.compared,
        same=m.same,
        not_compared=m.not_compared,
        chosen=_predicted_means(m.chosen) if m.HasField("chosen") else None,
        shadow=_predicted_means(m.shadow) if m.HasField("shadow") else None,
        failure=m.failure,
    )


def _predicted_means(m: admin_pb2.PredictedMeans) -> v.PredictedMeans:
    return v.PredictedMeans(first_token_s=seconds(m.first_token), finish_s=seconds(m.finish), cost=m.cost)


def shadow_policy_change(message: admin_pb2.SetShadowPolicyResponse) -> v.ShadowPolicyChange:
    """Decode the result of setting the shadow policy."""
    return v.ShadowPolicyChange(policy=message.policy, previous=message.previous, not_kept=message.not_kept)


def cancellation(message: inference_pb2.CancelResponse) -> v.Cancellation:
    """Decode the result of a cancel."""
    return v.Cancellation(cancelled=message.cancelled, state=request_state(message.state))


def explanation(message: admin_pb2.ExplainResponse) -> v.Explanation:
    """Decode a request's explanation."""
    return v.Explanation(
        request_id=message.request_id,
        model=message.model,
        priority=Priority(message.priority or Priority.NORMAL),
        state=request_state(message.state),
        decisions=tuple(decision(each) for each in message.decisions),
        history=tuple(
            v.HistoryEntry(at_s=seconds(each.at), event=each.event, detail=each.detail) for each in message.history
        ),
        error=message.error.message,
        error_reason=_reason(message.error),
        waiting_because=message.waiting_because,
        queue_position=message.queue_position,
        ordering_key=message.ordering_key,
        time_slices=tuple(_time_slice(each) for each in message.time_slices),
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        slo=tuple(slo_result(each) for each in message.slo),
        cost=message.cost,
        choices=tuple(explanation(each) for each in message.choices),
    )


def _time_slice(message: admin_pb2.TimeSlice) -> v.TimeSlice:
    return v.TimeSlice(
        use=word(TimeUse, admin_pb2.TimeUse.DESCRIPTOR, "TIME_USE_", message.use),
        start_s=seconds(message.start),
        length_s=seconds(message.length),
        instance_id=message.instance_id,
    )


def _reason(status: status_pb2.Status) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for each in status.details if each.Unpack(info)), "")
