"""Instances as AdminService shows them."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2, common_pb2
from sage_wire import durations
from scheduler_svc.domain.instance import Instance
from scheduler_svc.transport.enums import ROLE_TO_WIRE, STATE_TO_WIRE
from scheduler_svc.transport.events import parallelism


def instance_view(
    instance: Instance, now: float, decision: admin_pb2.InstanceDecision | None = None
) -> admin_pb2.Instance:
    """Convert an instance as the scheduler knows it, with what operators decided.  ``now``: on the control clock.

    Fields of the engine stay unset until its executor reports them.
    """
    spec = instance.spec
    wire = admin_pb2.Instance(
        instance_id=spec.instance_id,
        model=spec.model,
        role=ROLE_TO_WIRE[instance.role],
        state=STATE_TO_WIRE[instance.state],
        state_reason=instance.state_reason,
        state_age=durations.to_wire(now - instance.state_since),
        progress=instance.progress,
        assigned=len(instance.account.reservations),
        kv_reserved_tokens=instance.account.reserved_tokens,
        price_per_hour=spec.price_per_hour,
        location=common_pb2.Location(host=spec.location.host, rack=spec.location.rack, zone=spec.location.zone),
        labels=spec.labels,
        software_version=spec.software_version,
        decision=decision,
    )
    _add_facts(wire, instance)
    _add_load(wire, instance, now)
    return wire


def _add_facts(wire: admin_pb2.Instance, instance: Instance) -> None:
    facts = instance.facts
    if facts is None:
        return
    wire.revision = facts.revision
    wire.engine = facts.engine
    wire.engine_version = facts.engine_version
    wire.parallelism_config.CopyFrom(parallelism(facts.parallelism))
    wire.max_running = facts.max_running
    wire.max_model_len = facts.max_model_len
    wire.kv_capacity_tokens = facts.kv_capacity_tokens
    wire.gpu_memory_bytes = facts.gpu_memory_bytes
    wire.adapters.extend(sorted(facts.adapters))


def _add_load(wire: admin_pb2.Instance, instance: Instance, now: float) -> None:
    load = instance.load
    if load is None:
        return
    wire.running = load.running
    wire.waiting = load.waiting
    wire.kv_used_tokens = load.kv_used_tokens
    wire.iterations = load.iterations
    wire.prompt_tokens_per_s = load.prompt_tokens_per_s
    wire.generation_tokens_per_s = load.generation_tokens_per_s
    wire.prefix_queries_tokens = load.prefix_queries_tokens
    wire.prefix_hits_tokens = load.prefix_hits_tokens
    wire.gpu_memory_used_bytes = load.gpu_memory_used_bytes
    wire.known_wait = load.known_wait
    wire.kv_pulls = load.kv_pulls
    wire.kv_pulls_failed = load.kv_pulls_failed
    wire.kv_leases_expired = load.kv_leases_expired
    if instance.last_report_at is not None:
        wire.heartbeat_age.CopyFrom(durations.to_wire(now - instance.last_report_at))
