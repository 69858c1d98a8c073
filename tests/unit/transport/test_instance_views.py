"""What operators see of an instance.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

from dataclasses import replace

from sage.controlplane.v1 import admin_pb2, common_pb2
from sage_wire import durations
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.role_change import Cause, RoleChange
from scheduler_svc.transport.instances import InstanceViews, instance_view
from tests.unit.transport.completeness import unset
from tests.unit.transport.filled_values import LOAD, the_instance


def test_an_instance() -> None:
    instance = the_instance().transition("d", InstanceState.READY, "its engine is ready", 95.0)
    instance.load, instance.last_report_at, instance.progress = LOAD, 99.0, 0.5
    instance.wake_s = 2.5
    instance.account.reservations[1] = None  # type: ignore[assignment]  # it is counted only
    instance.account.kv.reserved_tokens = 48
    decision = admin_pb2.InstanceDecision(instance_id="d", drained=True)
    instance.role_change = RoleChange(
        model="m",
        instance_id="d",
        before=InstanceRole.DECODING,
        role=instance.role,
        cause=Cause.PREFILL_PRESSED,
        reason="prefill is pressed",
        at=90.0,
    )
    wire = instance_view(instance, 100.0, decision)
    assert unset(wire) == set()
    assert wire.decision == decision
    assert (wire.instance_id, wire.model, wire.revision) == ("d", "m", "abc")
    assert (wire.role, wire.state) == (common_pb2.INSTANCE_ROLE_DECODING, common_pb2.INSTANCE_STATE_READY)
    assert (wire.state_reason, durations.from_wire(wire.state_age)) == ("its engine is ready", 5.0)
    assert (wire.engine, wire.engine_version) == ("vllm", "0.32")
    assert (wire.max_running, wire.max_model_len, wire.kv_capacity_tokens) == (64, 2048, 65536)
    assert (wire.kv_used_tokens, wire.kv_reserved_tokens, wire.assigned) == (1000, 48, 1)
    assert (wire.running, wire.waiting, wire.iterations) == (3, 2, 77)
    assert (wire.prompt_tokens_per_s, wire.generation_tokens_per_s) == (1.5, 2.5)
    assert durations.from_wire(wire.heartbeat_age) == 1.0
    assert durations.from_wire(wire.wake_time) == 2.5
    assert (wire.prefix_queries_tokens, wire.prefix_hits_tokens) == (10, 8)
    assert (wire.gpu_memory_used_bytes, wire.gpu_memory_bytes) == (99, 141)
    assert (wire.kv_pulls, wire.kv_pulls_failed, wire.kv_leases_expired) == (21, 22, 23)
    assert (wire.known_wait, wire.software_version) == ("compiles a grammar", "1.2")
    assert not wire.engine_start_id, "it would help to take the executor's place"
    assert (wire.price_per_hour, dict(wire.labels), list(wire.adapters)) == (2.5, {"a": "b"}, ["lora"])
    assert (wire.location.host, wire.location.rack, wire.location.zone) == ("h", "r", "z")
    assert wire.device_group == "gpu-0"


def test_a_view_that_is_made_again_shows_what_changed() -> None:
    registry, views = the_instance(), InstanceViews()
    instance = registry.instance("d")

    def shown() -> admin_pb2.Instance:
        wire = admin_pb2.Instance()
        views.fill(wire, instance, 100.0)
        return wire

    assert shown() == instance_view(instance, 100.0)
    registry.transition("d", InstanceState.READY, "its engine is ready", 95.0)
    instance.load, instance.last_report_at = LOAD, 99.0
    assert shown() == instance_view(instance, 100.0)
    assert instance.facts is not None
    instance.facts = replace(instance.facts, revision="def")
    assert shown().revision == "def"
    instance.spec = replace(instance.spec, software_version="1.3", labels={})
    assert shown() == instance_view(instance, 100.0)
