"""Values that describe the scheduler's journal, and their messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sage.controlplane.v1 import admin_pb2
from sage_client._decode import seconds
from sage_client._plain import Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalStatus(Plain):
    """What the journal is, what it holds and whether it works.  Counts are since the scheduler's start."""

    database: str  # its URL without the password
    fleet: str  # whose journal it is
    schema_version: int
    created_at: datetime  # in UTC
    trouble: str  # why nothing can be written now, in words; empty while it works
    bytes: int  # that the database takes
    limit_bytes: int  # at this size a SQLite file takes no more; 0: not bounded here
    rows: Mapping[str, int]  # by table; empty while it cannot be read
    writes: int  # committed
    commits: int  # transactions
    refused: int  # writes refused
    failed: int  # writes whose transaction failed
    waiting: int  # writes, now
    mean_commit_s: float  # seconds
    usage_written: int  # usage records
    usage_dropped: int  # usage records


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalCompaction(Plain):
    """The result of compacting the journal."""

    bytes_before: int
    bytes: int
    usage_deleted: int  # usage records


def journal_status(m: admin_pb2.GetJournalResponse) -> JournalStatus | None:
    """Decode the journal's status; None if there is no journal."""
    if not m.present:
        return None
    return JournalStatus(
        database=m.database,
        fleet=m.fleet,
        schema_version=m.schema_version,
        created_at=m.created_at.ToDatetime(UTC),
        trouble=m.trouble,
        bytes=m.bytes,
        limit_bytes=m.limit_bytes,
        rows={each.name: each.rows for each in m.tables},
        writes=m.writes,
        commits=m.commits,
        refused=m.refused,
        failed=m.failed,
        waiting=m.waiting,
        mean_commit_s=seconds(m.mean_commit),
        usage_written=m.usage_written,
        usage_dropped=m.usage_dropped,
    )


def journal_compaction(m: admin_pb2.CompactJournalResponse) -> JournalCompaction:
    """Decode the result of compacting the journal."""
    return JournalCompaction(bytes_before=m.bytes_before, bytes=m.bytes, usage_deleted=m.usage_deleted)
