"""The ends of attempts that executors report, converted."""

from __future__ import annotations

from sage.controlplane.v1 import executor_pb2
from sage_wire import durations
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.transport.clipping import reported
from scheduler_svc.transport.enums import CAUSE_FROM_WIRE, FINISH_REASON_FROM_WIRE


def attempt_end(wire: executor_pb2.AssignmentEnded, number: int) -> AttemptEnd:
    """Convert the end of the attempt that has ``number`` here.

    A cause that this scheduler does not know counts as FAILED.
    """
    return AttemptEnd(
        attempt_number=number,
        cause=CAUSE_FROM_WIRE.get(wire.cause, EndCause.FAILED),
        finish_reason=FINISH_REASON_FROM_WIRE.get(wire.finish_reason, ""),
        stop_string=wire.stop_string,
        stop_token_id=wire.stop_token_id if wire.HasField("stop_token_id") else None,
        total_tokens=wire.total_tokens,
        trailing_text=wire.trailing_text,
        cached_prompt_tokens=wire.cached_prompt_tokens,
        field=_caller_path(reported(wire.field)),
        message=reported(wire.message),
        engine_time_s=durations.from_wire(wire.engine_time),
        kv_transfer_params=wire.kv_transfer_params,
        kv_lease_s=durations.from_wire(wire.kv_lease),
        kv_unclaimed=wire.kv_unclaimed,
        kv_recomputed=wire.kv_recomputed,
        engine_died=wire.engine_died,
        embedding=wire.embedding,
    )


def rejection(reason: executor_pb2.AssignmentRejected.Reason.ValueType) -> str:
    """Return a rejection's reason in lower case, or ``reason N`` for one that only a newer executor knows."""
    known = executor_pb2.AssignmentRejected.Reason
    return known.Name(reason).removeprefix("REASON_").lower() if reason in known.values() else f"reason {reason}"


def _caller_path(field: str) -> str:
    """Return the caller's path for a field of Assign: the same field below ``spec``."""
    if not field:
        return "spec"
    return field if field.startswith("spec.") else f"spec.{field}"
