"""Snapshots of made-up fleets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sage.controlplane.v1 import admin_pb2
from sage_client import (
    FleetCounts,
    FleetSnapshot,
    Instance,
    InstanceRole,
    InstanceState,
    PairState,
    Phase,
    PrefillDecodeConfig,
    PrefillDecodePair,
    PrefillDecodeStatus,
    Priority,
    QueueInfo,
    RecentDecision,
    RecentFailover,
    SloAttainment,
    SplitMode,
)
from sage_client._decode_admin import instance as decode_instance
from sage_client._decode_prefill_decode import status as decode_status


def instance(instance_id: str, **fields: Any) -> Instance:
    given: dict[str, Any] = {
        "role": InstanceRole.GENERAL,
        "state": InstanceState.READY,
        "state_reason": "its engine is ready",
        "state_age_s": 75.0,
        "max_running": 8,
        "kv_capacity_tokens": 10_000,
        "kv_used_tokens": 2_000,
        "kv_reserved_tokens": 6_000,
        "running": 4,
        "waiting": 1,
        "assigned": 5,
        "prompt_tokens_per_s": 2_500.0,
        "generation_tokens_per_s": 512.4,
        "price_per_hour": 1.5,
    }
    bare = decode_instance(admin_pb2.Instance(instance_id=instance_id, model="tiny"))
    return replace(bare, **{**given, **fields})


def counts(span_s: float = 300.0, **fields: Any) -> FleetCounts:
    given: dict[str, Any] = dict.fromkeys(
        ("accepted", "refused", "finished", "failed", "cancelled", "expired", "failovers", "output_tokens"), 0
    )
    return FleetCounts(**{**given, "span_s": span_s, "slo": (), **fields})


def prefill_decode(**fields: Any) -> PrefillDecodeStatus:
    config = PrefillDecodeConfig(mode=SplitMode.NEVER, threshold_input_tokens=2048, threshold_ratio=4.0)
    return replace(decode_status(admin_pb2.GetPrefillDecodeResponse()), **{"config": config, **fields})


def splitting() -> PrefillDecodeStatus:
    return prefill_decode(
        config=PrefillDecodeConfig(mode=SplitMode.THRESHOLD, threshold_input_tokens=600, threshold_ratio=4.0),
        pairs=(
            pair("p1", "d1", state=PairState.USABLE, handoff_s=0.028),
            pair("p1", "d2", state=PairState.FAILED, reason="nothing to fetch"),
        ),
        pairs_by_state={"usable": 1, "failed": 1},
        conditions=("no prefill instance of 'other' is ready",),
        splits=120,
        fallbacks=3,
    )


def pair(prefill: str, decode: str, **fields: Any) -> PrefillDecodePair:
    given: dict[str, Any] = {"model": "tiny", "reason": "", "handoff_s": None}
    return PrefillDecodePair(prefill_instance_id=prefill, decode_instance_id=decode, **{**given, **fields})


def decision(number: int, **fields: Any) -> RecentDecision:
    given: dict[str, Any] = {
        "ago_s": number,
        "request_id": f"r-{number}",
        "tenant": "default",
        "policy": "slo_aware",
        "phase": Phase.HYBRID,
        "instance_id": "executor-1",
        "prefill_instance_id": "",
        "waited_s": 0.1,
        "reason": "uses 40% of its targets, the least",
    }
    return RecentDecision(**{**given, **fields})


def failover(number: int) -> RecentFailover:
    return RecentFailover(
        ago_s=float(number), request_id=f"f-{number}", tenant="default", cause="lost", reason="executor-9 was lost"
    )


def snapshot(**fields: Any) -> FleetSnapshot:
    """A busy fleet: everything there is to show."""
    slo = (
        SloAttainment(priority=Priority.CRITICAL, met=50, missed=0),
        SloAttainment(priority=Priority.NORMAL, met=1_999, missed=1),
    )
    given: dict[str, Any] = {
        "epoch": 7,
        "uptime_s": 3_720.0,
        "policy": "adaptive",
        "delegate": "slo_aware",
        "latest_switch": None,
        "instances": tuple(instance(f"executor-{n}") for n in range(1, 4)),
        "queues": (
            QueueInfo(model="tiny", waiting=3, limit=10_000, waiting_by_priority={"high": 1, "normal": 2, "low": 0}),
        ),
        "requests_running": 12,
        "requests_waiting": 3,
        "latest": counts(12.0, finished=120, accepted=132),
        "recent": counts(finished=2_049, failed=1, refused=4, failovers=2, slo=slo),
        "since_start": counts(3_720.0, slo=(SloAttainment(priority=Priority.NORMAL, met=9, missed=1),)),
        "prefill_decode": splitting(),
        "decisions": tuple(decision(n) for n in range(1, 41)),
        "failovers": tuple(failover(n) for n in range(1, 10)),
    }
    return FleetSnapshot(**{**given, **fields})
