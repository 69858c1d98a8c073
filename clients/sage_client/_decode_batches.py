"""Converts messages about batches and files, in both directions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from google.protobuf.message import Message

from sage.controlplane.v1 import batch_pb2, common_pb2, inference_pb2
from sage_client import _decode as decode
from sage_client._batches import Batch, BatchCounts, BatchFault, BatchState, FilePurpose, StoredFile
from sage_client._durations import Seconds, duration
from sage_client._enums import Priority
from sage_client._field_faults import FieldFaults


def new_file(file_id: str | None, tenant: str, name: str, keep: Seconds | None) -> batch_pb2.NewFile:
    """Encode what is said of a file that is uploaded.  Raises InvalidRequestError."""
    made = batch_pb2.NewFile(tenant=tenant, purpose=batch_pb2.FILE_PURPOSE_BATCH)
    faults = FieldFaults()
    with faults.at("file_id"):
        made.file_id = file_id or f"file-{uuid.uuid4().hex}"
    with faults.at("filename"):
        made.filename = name
    if keep is not None:
        with faults.at("keep"):
            made.keep.CopyFrom(duration(keep))
    faults.raise_any()
    return made


def submit_batch_request(
    input_file_id: str,
    tenant: str,
    *,
    endpoint: str,
    batch_id: str | None,
    deadline: Seconds | None,
    priority: Priority | int | str | None,
    metadata: Mapping[str, str],
    keep_result: Seconds | None,
) -> inference_pb2.SubmitBatchRequest:
    """Encode a batch.  Raises InvalidRequestError."""
    made, faults = inference_pb2.SubmitBatchRequest(tenant=tenant), FieldFaults()
    with faults.at("batch_id"):
        made.batch_id = batch_id or f"batch-{uuid.uuid4().hex}"
    with faults.at("input_file_id"):
        made.input_file_id = input_file_id
    with faults.at("endpoint"):
        made.endpoint = endpoint
    with faults.at("metadata"):
        made.metadata.update(metadata)
    if priority is not None:
        with faults.at("priority"):
            made.priority = common_pb2.Priority.Value(f"PRIORITY_{Priority.parse(priority).name}")
    if deadline is not None:
        with faults.at("deadline"):
            made.deadline.CopyFrom(duration(deadline))
    if keep_result is not None:
        with faults.at("keep_result"):
            made.keep_result.CopyFrom(duration(keep_result))
    faults.raise_any()
    return made


def stored_file(message: batch_pb2.FileView) -> StoredFile:
    """Decode a file."""
    return StoredFile(
        file_id=message.file_id,
        tenant=message.tenant,
        name=message.filename,
        purpose=decode.word(FilePurpose, batch_pb2.FilePurpose.DESCRIPTOR, "FILE_PURPOSE_", message.purpose),
        size_bytes=message.bytes,
        created_at=message.created_at.ToDatetime(UTC),
        keep_until=_time(message, "keep_until"),
    )


def batch(message: batch_pb2.BatchView) -> Batch:
    """Decode a batch."""
    return Batch(
        batch_id=message.batch_id,
        tenant=message.tenant,
        state=decode.word(BatchState, batch_pb2.BatchState.DESCRIPTOR, "BATCH_STATE_", message.state),
        endpoint=message.endpoint,
        priority=decode.priority(message.priority),
        input_file_id=message.input_file_id,
        output_file_id=message.output_file_id,
        error_file_id=message.error_file_id,
        counts=BatchCounts(
            total=message.counts.total, completed=message.counts.completed, failed=message.counts.failed
        ),
        faults=tuple(
            BatchFault(code=each.code, message=each.message, line=each.line or None, param=each.param)
            for each in message.errors
        ),
        metadata=dict(message.metadata),
        created_at=message.created_at.ToDatetime(UTC),
        expires_at=_time(message, "expires_at"),
        started_at=_time(message, "started_at"),
        cancelling_at=_time(message, "cancelling_at"),
        ended_at=_time(message, "ended_at"),
        keep_until=_time(message, "keep_until"),
    )


def purpose_number(purpose: FilePurpose | str | None) -> batch_pb2.FilePurpose.ValueType:
    """Encode a purpose; None: any.  Raises ValueError for a name that is none."""
    name = "UNSPECIFIED" if purpose is None else FilePurpose(purpose).name
    return batch_pb2.FilePurpose.Value(f"FILE_PURPOSE_{name}")


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    found: datetime = getattr(message, field).ToDatetime(UTC)
    return found
