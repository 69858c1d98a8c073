"""Maps the runtime's enumerations to those of the wire, and back."""

from __future__ import annotations

from executor_svc.runtime.engine_port import EngineState, FinishReason
from executor_svc.runtime.messages.commands import Phase
from executor_svc.runtime.messages.outputs import EndCause, RejectReason
from executor_svc.runtime.messages.registration import Role
from sage.controlplane.v1 import common_pb2, executor_pb2

STATE_TO_WIRE = {
    EngineState.DOWNLOADING: common_pb2.INSTANCE_STATE_DOWNLOADING,
    EngineState.LOADING: common_pb2.INSTANCE_STATE_LOADING,
    EngineState.WARMING: common_pb2.INSTANCE_STATE_WARMING,
    EngineState.READY: common_pb2.INSTANCE_STATE_READY,
    EngineState.FAILED: common_pb2.INSTANCE_STATE_FAILED,
}

ROLE_TO_WIRE = {
    Role.GENERAL: common_pb2.INSTANCE_ROLE_GENERAL,
    Role.PREFILLING: common_pb2.INSTANCE_ROLE_PREFILLING,
    Role.DECODING: common_pb2.INSTANCE_ROLE_DECODING,
    Role.HYBRID: common_pb2.INSTANCE_ROLE_HYBRID,
    Role.EMBEDDING: common_pb2.INSTANCE_ROLE_EMBEDDING,
}
ROLE_FROM_WIRE = {wire: role for role, wire in ROLE_TO_WIRE.items()} | {
    common_pb2.INSTANCE_ROLE_UNSPECIFIED: Role.GENERAL
}

PHASE_FROM_WIRE = {
    common_pb2.PHASE_UNSPECIFIED: Phase.HYBRID,
    common_pb2.PHASE_HYBRID: Phase.HYBRID,
    common_pb2.PHASE_PREFILLING: Phase.PREFILLING,
    common_pb2.PHASE_DECODING: Phase.DECODING,
}

REJECT_TO_WIRE = {
    RejectReason.STALE_EPOCH: executor_pb2.AssignmentRejected.REASON_STALE_EPOCH,
    RejectReason.DRAINING: executor_pb2.AssignmentRejected.REASON_DRAINING,
    RejectReason.NOT_READY: executor_pb2.AssignmentRejected.REASON_NOT_READY,
    RejectReason.KV_LEASE_EXPIRED: executor_pb2.AssignmentRejected.REASON_KV_LEASE_EXPIRED,
    RejectReason.FULL: executor_pb2.AssignmentRejected.REASON_FULL,
}

CAUSE_TO_WIRE = {
    EndCause.FINISHED: executor_pb2.AssignmentEnded.CAUSE_FINISHED,
    EndCause.CANCELLED: executor_pb2.AssignmentEnded.CAUSE_CANCELLED,
    EndCause.INVALID: executor_pb2.AssignmentEnded.CAUSE_INVALID,
    EndCause.FAILED: executor_pb2.AssignmentEnded.CAUSE_FAILED,
    EndCause.DEADLINE: executor_pb2.AssignmentEnded.CAUSE_DEADLINE,
    EndCause.REPLAY_DIVERGED: executor_pb2.AssignmentEnded.CAUSE_REPLAY_DIVERGED,
}

FINISH_TO_WIRE = {
    None: common_pb2.FINISH_REASON_UNSPECIFIED,
    FinishReason.STOP: common_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: common_pb2.FINISH_REASON_LENGTH,
}
"""ABORTED is absent because the runtime reports such an end as FAILED, without a finish reason."""
