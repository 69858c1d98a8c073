"""Tables between the contract's enums and the domain's."""

from __future__ import annotations

from sage.controlplane.v1 import common_pb2, executor_pb2, inference_pb2
from scheduler_svc.domain.attempt_end import EndCause
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import Priority, RequestState, ResumeMode

PRIORITY_FROM_WIRE: dict[common_pb2.Priority.ValueType, Priority] = {
    common_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    common_pb2.PRIORITY_CRITICAL: Priority.CRITICAL,
    common_pb2.PRIORITY_HIGH: Priority.HIGH,
    common_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    common_pb2.PRIORITY_LOW: Priority.LOW,
    common_pb2.PRIORITY_BACKGROUND: Priority.BACKGROUND,
}
PRIORITY_TO_WIRE: dict[Priority, common_pb2.Priority.ValueType] = {
    p: w for w, p in PRIORITY_FROM_WIRE.items() if w != common_pb2.PRIORITY_UNSPECIFIED
}

RESUME_MODE_FROM_WIRE: dict[int, ResumeMode] = {
    inference_pb2.RESUME_MODE_UNSPECIFIED: ResumeMode.STRICT,
    inference_pb2.RESUME_MODE_STRICT: ResumeMode.STRICT,
    inference_pb2.RESUME_MODE_BEST_EFFORT: ResumeMode.BEST_EFFORT,
}

WAIT_FROM_WIRE: dict[int, bool] = {
    inference_pb2.NO_INSTANCE_UNSPECIFIED: False,
    inference_pb2.NO_INSTANCE_FAIL: False,
    inference_pb2.NO_INSTANCE_WAIT: True,
}

ROLE_FROM_WIRE: dict[common_pb2.InstanceRole.ValueType, InstanceRole] = {
    common_pb2.INSTANCE_ROLE_UNSPECIFIED: InstanceRole.GENERAL,
    common_pb2.INSTANCE_ROLE_GENERAL: InstanceRole.GENERAL,
    common_pb2.INSTANCE_ROLE_PREFILLING: InstanceRole.PREFILLING,
    common_pb2.INSTANCE_ROLE_DECODING: InstanceRole.DECODING,
    common_pb2.INSTANCE_ROLE_HYBRID: InstanceRole.HYBRID,
    common_pb2.INSTANCE_ROLE_EMBEDDING: InstanceRole.EMBEDDING,
}
ROLE_TO_WIRE: dict[InstanceRole, common_pb2.InstanceRole.ValueType] = {
    r: w for w, r in ROLE_FROM_WIRE.items() if w != common_pb2.INSTANCE_ROLE_UNSPECIFIED
}

STATE_TO_WIRE: dict[InstanceState, common_pb2.InstanceState.ValueType] = {
    InstanceState.DOWNLOADING: common_pb2.INSTANCE_STATE_DOWNLOADING,
    InstanceState.LOADING: common_pb2.INSTANCE_STATE_LOADING,
    InstanceState.WARMING: common_pb2.INSTANCE_STATE_WARMING,
    InstanceState.READY: common_pb2.INSTANCE_STATE_READY,
    InstanceState.SUSPECT: common_pb2.INSTANCE_STATE_SUSPECT,
    InstanceState.STALLED: common_pb2.INSTANCE_STATE_STALLED,
    InstanceState.DRAINING: common_pb2.INSTANCE_STATE_DRAINING,
    InstanceState.DRAINED: common_pb2.INSTANCE_STATE_DRAINED,
    InstanceState.SLEEPING: common_pb2.INSTANCE_STATE_SLEEPING,
    InstanceState.LOST: common_pb2.INSTANCE_STATE_LOST,
    InstanceState.FAILED: common_pb2.INSTANCE_STATE_FAILED,
}
ENGINE_STATE_FROM_WIRE: dict[int, InstanceState] = {
    common_pb2.INSTANCE_STATE_DOWNLOADING: InstanceState.DOWNLOADING,
    common_pb2.INSTANCE_STATE_LOADING: InstanceState.LOADING,
    common_pb2.INSTANCE_STATE_WARMING: InstanceState.WARMING,
    common_pb2.INSTANCE_STATE_READY: InstanceState.READY,
    common_pb2.INSTANCE_STATE_FAILED: InstanceState.FAILED,
}
"""The states that an executor reports of its engine.  The scheduler itself works out the other ones."""

PHASE_TO_WIRE: dict[Phase, common_pb2.Phase.ValueType] = {
    Phase.HYBRID: common_pb2.PHASE_HYBRID,
    Phase.PREFILLING: common_pb2.PHASE_PREFILLING,
    Phase.DECODING: common_pb2.PHASE_DECODING,
}

REQUEST_STATE_TO_WIRE: dict[RequestState, inference_pb2.RequestState.ValueType] = {
    RequestState.QUEUED: inference_pb2.REQUEST_STATE_QUEUED,
    RequestState.RUNNING: inference_pb2.REQUEST_STATE_RUNNING,
    RequestState.FINISHED: inference_pb2.REQUEST_STATE_FINISHED,
    RequestState.FAILED: inference_pb2.REQUEST_STATE_FAILED,
    RequestState.CANCELLED: inference_pb2.REQUEST_STATE_CANCELLED,
    RequestState.EXPIRED: inference_pb2.REQUEST_STATE_EXPIRED,
}

REQUEST_STATE_FROM_WIRE: dict[int, RequestState] = {w: s for s, w in REQUEST_STATE_TO_WIRE.items()}

FINISH_REASON_TO_WIRE: dict[str, common_pb2.FinishReason.ValueType] = {
    "stop": common_pb2.FINISH_REASON_STOP,
    "length": common_pb2.FINISH_REASON_LENGTH,
}
FINISH_REASON_FROM_WIRE: dict[int, str] = {w: r for r, w in FINISH_REASON_TO_WIRE.items()}

CAUSE_FROM_WIRE: dict[int, EndCause] = {
    executor_pb2.AssignmentEnded.CAUSE_FINISHED: EndCause.FINISHED,
    executor_pb2.AssignmentEnded.CAUSE_CANCELLED: EndCause.CANCELLED,
    executor_pb2.AssignmentEnded.CAUSE_INVALID: EndCause.INVALID,
    executor_pb2.AssignmentEnded.CAUSE_FAILED: EndCause.FAILED,
    executor_pb2.AssignmentEnded.CAUSE_DEADLINE: EndCause.DEADLINE,
    executor_pb2.AssignmentEnded.CAUSE_REPLAY_DIVERGED: EndCause.REPLAY_DIVERGED,
}
