"""Instances as AdminService shows them."""

from __future__ import annotations

from dataclasses import dataclass

from sage.controlplane.v1 import admin_pb2, common_pb2
from sage_wire import durations
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.transport.automatic_roles import role_change
from scheduler_svc.transport.enums import ROLE_TO_WIRE, STATE_TO_WIRE
from scheduler_svc.transport.events import parallelism

KEPT_LIMIT = 16_384
"""Instances of which a part is kept; above it all are forgotten."""


@dataclass(slots=True)
class _Kept:
    """Messages of one instance, and what they were made of."""

    spec: InstanceSpec
    facts: EngineFacts | None
    unchanging: admin_pb2.Instance  # what follows from these two
    load: LoadReport | None = None
    loaded: admin_pb2.Instance | None = None  # the same with the load


class InstanceViews:
    """Converts instances, and keeps of each what stays the same while its engine runs, and until its next report."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def fill(
        self,
        wire: admin_pb2.Instance,
        instance: Instance,
        now: float,
        decision: admin_pb2.InstanceDecision | None = None,
    ) -> None:
        """Convert an instance as the scheduler knows it, with what operators decided, into an empty message.

        ``now``: seconds on the control clock.  Fields of the engine stay unset until its executor reports them.
        """
        wire.CopyFrom(self._loaded(instance))
        wire.role = ROLE_TO_WIRE[instance.role]
        wire.state = STATE_TO_WIRE[instance.state]
        wire.state_reason = instance.state_reason
        durations.fill(wire.state_age, now - instance.state_since)
        if instance.progress is not None:
            wire.progress = instance.progress
        wire.assigned = len(instance.account.reservations)
        wire.kv_reserved_tokens = instance.account.kv.reserved_tokens
        if instance.wake_s is not None:
            durations.fill(wire.wake_time, instance.wake_s)
        if instance.role_change is not None:
            wire.role_change.CopyFrom(role_change(instance.role_change, now))
        if decision is not None:
            wire.decision.CopyFrom(decision)
        if instance.load is not None and instance.last_report_at is not None:
            durations.fill(wire.heartbeat_age, now - instance.last_report_at)

    def _loaded(self, instance: Instance) -> admin_pb2.Instance:
        """Return what follows from an instance's registration, its engine's facts and its latest report."""
        kept, load = self._of(instance), instance.load
        if load is None:
            return kept.unchanging
        if kept.loaded is None or kept.load is not load:
            made = admin_pb2.Instance()
            made.CopyFrom(kept.unchanging)
            _add_load(made, load)
            kept.load, kept.loaded = load, made
        return kept.loaded

    def _of(self, instance: Instance) -> _Kept:
        spec, facts = instance.spec, instance.facts
        kept = self._kept.get(spec.instance_id)
        if kept is not None and kept.spec is spec and kept.facts is facts:
            return kept
        if len(self._kept) >= KEPT_LIMIT:
            self._kept.clear()
        wire = _of_spec(spec)
        if facts is not None:
            _add_facts(wire, facts)
        made = self._kept[spec.instance_id] = _Kept(spec, facts, wire)
        return made


def instance_view(
    instance: Instance, now: float, decision: admin_pb2.InstanceDecision | None = None
) -> admin_pb2.Instance:
    """Convert one instance, as ``InstanceViews`` does, and keep nothing of it."""
    wire = admin_pb2.Instance()
    InstanceViews().fill(wire, instance, now, decision)
    return wire


def _of_spec(spec: InstanceSpec) -> admin_pb2.Instance:
    return admin_pb2.Instance(
        instance_id=spec.instance_id,
        model=spec.model,
        price_per_hour=spec.price_per_hour,
        location=common_pb2.Location(host=spec.location.host, rack=spec.location.rack, zone=spec.location.zone),
        labels=spec.labels,
        software_version=spec.software_version,
        device_group=spec.device_group.name if spec.device_group is not None else "",
    )


def _add_facts(wire: admin_pb2.Instance, facts: EngineFacts) -> None:
    wire.revision = facts.revision
    wire.engine = facts.engine
    wire.engine_version = facts.engine_version
    wire.parallelism_config.CopyFrom(parallelism(facts.parallelism))
    wire.max_running = facts.max_running
    wire.max_model_len = facts.max_model_len
    wire.kv_capacity_tokens = facts.kv_capacity_tokens
    wire.gpu_memory_bytes = facts.gpu_memory_bytes
    wire.adapters.extend(sorted(facts.adapters))


def _add_load(wire: admin_pb2.Instance, load: LoadReport) -> None:
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
