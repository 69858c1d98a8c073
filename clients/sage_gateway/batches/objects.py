"""Files and batches as OpenAI's API has them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sage_client import Batch, BatchState, StoredFile

_ENDED_AT = {
    BatchState.COMPLETED: "completed_at",
    BatchState.FAILED: "failed_at",
    BatchState.EXPIRED: "expired_at",
    BatchState.CANCELLED: "cancelled_at",
}

HOUR_S = 3_600


def file_object(stored: StoredFile) -> dict[str, Any]:
    """Return a file's object."""
    return {
        "id": stored.file_id,
        "object": "file",
        "bytes": stored.size_bytes,
        "created_at": _seconds(stored.created_at),
        "expires_at": _seconds(stored.keep_until),
        "filename": stored.name,
        "purpose": stored.purpose.value,
        "status": "processed",
    }


def batch_object(batch: Batch) -> dict[str, Any]:
    """Return a batch's object; ``sage`` in it has what OpenAI's has no field for."""
    times = dict.fromkeys(("finalizing_at", *_ENDED_AT.values()))
    if batch.state in _ENDED_AT:
        times[_ENDED_AT[batch.state]] = _seconds(batch.ended_at)
    return {
        "id": batch.batch_id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": _errors(batch),
        "input_file_id": batch.input_file_id,
        "completion_window": _window(batch),
        "status": batch.state.value,
        "output_file_id": batch.output_file_id or None,
        "error_file_id": batch.error_file_id or None,
        "created_at": _seconds(batch.created_at),
        "in_progress_at": _seconds(batch.started_at),
        "expires_at": _seconds(batch.expires_at),
        "cancelling_at": _seconds(batch.cancelling_at),
        **times,
        "request_counts": {
            "total": batch.counts.total,
            "completed": batch.counts.completed,
            "failed": batch.counts.failed,
        },
        "metadata": dict(batch.metadata) or None,
        "sage": {"priority": batch.priority.name.lower(), "keep_until": _seconds(batch.keep_until)},
    }


def list_object(data: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """Return a page of a list."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": more,
    }


def _errors(batch: Batch) -> dict[str, Any] | None:
    if not batch.faults:
        return None
    data = [
        {"code": each.code, "message": each.message, "param": each.param or None, "line": each.line}
        for each in batch.faults
    ]
    return {"object": "list", "data": data}


def _window(batch: Batch) -> str:
    """Return the time that a batch was given, such as "24h" or "90s"."""
    if batch.expires_at is None:
        return "24h"
    seconds = round((batch.expires_at - batch.created_at).total_seconds())
    return f"{seconds // HOUR_S}h" if seconds % HOUR_S == 0 else f"{seconds}s"


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
