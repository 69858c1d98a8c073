"""Files and batches as callers see them."""

from __future__ import annotations

from sage.controlplane.v1 import batch_pb2
from scheduler_svc.control.batches.batches import Batches
from scheduler_svc.control.journal.batches import BatchState, FilePurpose, OwnedId, StoredBatch, StoredFile
from scheduler_svc.transport.enums import PRIORITY_TO_WIRE
from scheduler_svc.transport.request_views import timestamp

PURPOSE_TO_WIRE: dict[FilePurpose, batch_pb2.FilePurpose.ValueType] = {
    FilePurpose.BATCH: batch_pb2.FILE_PURPOSE_BATCH,
    FilePurpose.BATCH_OUTPUT: batch_pb2.FILE_PURPOSE_BATCH_OUTPUT,
}

STATE_TO_WIRE: dict[BatchState, batch_pb2.BatchState.ValueType] = {
    BatchState.VALIDATING: batch_pb2.BATCH_STATE_VALIDATING,
    BatchState.IN_PROGRESS: batch_pb2.BATCH_STATE_IN_PROGRESS,
    BatchState.CANCELLING: batch_pb2.BATCH_STATE_CANCELLING,
    BatchState.COMPLETED: batch_pb2.BATCH_STATE_COMPLETED,
    BatchState.FAILED: batch_pb2.BATCH_STATE_FAILED,
    BatchState.EXPIRED: batch_pb2.BATCH_STATE_EXPIRED,
    BatchState.CANCELLED: batch_pb2.BATCH_STATE_CANCELLED,
}


def file_view(file: StoredFile, batches: Batches) -> batch_pb2.FileView:
    """Show a file."""
    made = batch_pb2.FileView(
        file_id=file.key.id,
        tenant=file.key.tenant,
        filename=file.filename,
        purpose=PURPOSE_TO_WIRE[file.purpose],
        bytes=file.size_bytes,
        created_at=timestamp(file.created_at),
    )
    keep_until = batches.files.keep_until(file)
    if keep_until is not None:
        made.keep_until.CopyFrom(timestamp(keep_until))
    return made


def batch_view(batch: StoredBatch, batches: Batches) -> batch_pb2.BatchView:
    """Show a batch."""
    made = batch_pb2.BatchView(
        batch_id=batch.key.id,
        tenant=batch.key.tenant,
        input_file_id=batch.input_file_id,
        output_file_id=_if_there(batch.output, batches),
        error_file_id=_if_there(batch.error_output, batches),
        endpoint=batch.endpoint,
        priority=PRIORITY_TO_WIRE[batch.priority],
        state=STATE_TO_WIRE[batch.state],
        counts=batch_pb2.BatchCounts(total=batch.total, completed=batch.completed, failed=batch.failed),
        metadata=batch.metadata,
        created_at=timestamp(batch.created_at),
        expires_at=timestamp(batch.expires_at),
    )
    for each in batch.errors:
        made.errors.add(code=each.code, message=each.message, param=each.param, line=each.line)
    times = (
        ("started_at", batch.started_at),
        ("cancelling_at", batch.cancelling_at),
        ("ended_at", batch.ended_at),
        ("keep_until", batch.keep_until),
    )
    for name, at in times:
        if at is not None:
            getattr(made, name).CopyFrom(timestamp(at))
    return made


def _if_there(key: OwnedId, batches: Batches) -> str:
    return key.id if batches.files.knows(key) else ""
