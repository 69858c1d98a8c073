"""SubmitBatchRequest as a batch that is not accepted yet."""

from __future__ import annotations

import hashlib
import uuid

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire import durations
from sage_wire.batches import ENDPOINTS
from scheduler_svc.control.batches.files import checked_keep
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.journal.batches import OwnedId, StoredBatch
from scheduler_svc.domain.request import Priority
from scheduler_svc.transport.batches.names import check_text, raise_any
from scheduler_svc.transport.clipping import size_of
from scheduler_svc.transport.enums import PRIORITY_FROM_WIRE
from scheduler_svc.transport.request_limits import TAGS_LIMIT
from scheduler_svc.transport.submissions import enum_value, seconds_of
from scheduler_svc.transport.violations import Violations

ID_CHARACTERS = 200  # of a batch: its lines are requests whose ids begin with it
METADATA_BYTES = 576  # key and value of an entry together


def batch_of(
    request: inference_pb2.SubmitBatchRequest, tenant: str, settings: BatchSettings, now: float
) -> StoredBatch:
    """Convert a request.  ``now``: seconds since 1970.  Raises InvalidRequest with every field at fault."""
    violations = Violations()
    check_text("batch_id", request.batch_id, violations, ID_CHARACTERS)
    check_text("tenant", tenant, violations)
    if request.requests:
        violations.add("requests", "are not taken in this version: they are lines of the file in input_file_id")
    if not request.input_file_id:
        violations.add("input_file_id", "is empty")
    if request.endpoint and request.endpoint not in ENDPOINTS:
        violations.add("endpoint", f"is none of {', '.join(ENDPOINTS)}")
    _metadata(request, violations)
    priority = enum_value(PRIORITY_FROM_WIRE, request.priority, "priority", Priority.BACKGROUND, violations)
    if request.priority == common_pb2.PRIORITY_UNSPECIFIED:
        priority = Priority.BACKGROUND
    deadline_s = seconds_of(request, "deadline", "deadline", violations) or settings.deadline_s
    if deadline_s > settings.deadline_limit_s:
        limit_s = settings.deadline_limit_s
        violations.add("deadline", f"is {deadline_s:g} s; the limit is {limit_s:g} s (batches.deadline_limit_s)")
    raise_any(violations)
    keep_s = durations.from_wire(request.keep_result) if request.HasField("keep_result") else None
    return StoredBatch(
        key=OwnedId(tenant=tenant, id=request.batch_id or f"batch_{uuid.uuid4().hex}"),
        digest=_digest(request),
        input_file_id=request.input_file_id,
        endpoint=request.endpoint,
        priority=priority,
        metadata=dict(request.metadata),
        created_at=now,
        expires_at=now + deadline_s,
        keep_s=checked_keep("keep_result", keep_s, settings),
    )


def _metadata(request: inference_pb2.SubmitBatchRequest, violations: Violations) -> None:
    if len(request.metadata) > TAGS_LIMIT:
        violations.add("metadata", f"has {len(request.metadata)} entries; the limit is {TAGS_LIMIT}")
        return
    for key, value in request.metadata.items():
        if size_of(key) + size_of(value) > METADATA_BYTES:
            violations.add(f"metadata[{key[:32]!r}]", f"key and value are longer than {METADATA_BYTES} bytes")


def _digest(request: inference_pb2.SubmitBatchRequest) -> bytes:
    """Return what is the same for the same content, under whatever id."""
    content = inference_pb2.SubmitBatchRequest()
    content.CopyFrom(request)
    content.ClearField("batch_id")
    content.ClearField("tenant")
    return hashlib.sha256(content.SerializeToString(deterministic=True)).digest()
