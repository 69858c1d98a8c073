"""The journal as AdminService shows it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.control.journal.maintenance import JournalFigures, JournalMaintenance, JournalStatus
from scheduler_svc.control.journal.usage import UsageRetention, UsageStore
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.transport.usage_answers import timestamp

ExportPage: TypeAlias = admin_pb2.ExportJournalResponse

MESSAGE_BYTES = 2**20
"""Most bytes of lines in one message of an export, unless a single line is longer."""


class JournalAnswers:
    """Answers GetJournal, CompactJournal and ExportJournal."""

    def __init__(
        self,
        maintenance: JournalMaintenance | None,
        usage: UsageStore | None,
        retention: UsageRetention,
        usage_counts: Callable[[], Mapping[str, int]],
    ) -> None:
        """``maintenance`` and ``usage`` are None without a journal; ``usage_counts`` counts records by their fate."""
        self._maintenance = maintenance
        self._usage = usage
        self._retention = retention
        self._usage_counts = usage_counts

    async def status(self) -> admin_pb2.GetJournalResponse:
        """Return what the journal is, what it holds and whether it works."""
        if self._maintenance is None:
            return admin_pb2.GetJournalResponse(present=False)
        message = _status(await self._maintenance.status(), self._maintenance.figures)
        counts = self._usage_counts()
        message.usage_written = counts.get("written", 0)
        message.usage_dropped = sum(counts.values()) - message.usage_written
        return message

    async def compact(self) -> admin_pb2.CompactJournalResponse:
        """Delete what need not be kept, and give space back.  Raises JournalUnavailable."""
        maintenance = self._needed()
        deleted = await self._usage.retain(self._retention, time.time()) if self._usage is not None else 0
        before, after = await maintenance.compact()
        return admin_pb2.CompactJournalResponse(bytes_before=before, bytes=after, usage_deleted=deleted)

    async def export(
        self, request: admin_pb2.ExportJournalRequest
    ) -> AsyncGenerator[admin_pb2.ExportJournalResponse, None]:
        """Give the journal's rows in pages.  Raises InvalidRequest, JournalUnavailable."""
        async for lines in self._needed().export(set(request.tables)):
            for part in _parts(lines):
                yield admin_pb2.ExportJournalResponse(lines=part)

    def _needed(self) -> JournalMaintenance:
        if self._maintenance is None:
            raise JournalUnavailable("there is none: the scheduler has no journal.url and no state_dir")
        return self._maintenance


def _parts(lines: Sequence[str]) -> Iterator[list[str]]:
    """Split lines into messages of about MESSAGE_BYTES; a longer line has one of its own."""
    part: list[str] = []
    size = 0
    for line in lines:
        if part and size + len(line) > MESSAGE_BYTES:
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


def _status(status: JournalStatus, figures: JournalFigures) -> admin_pb2.GetJournalResponse:
    return admin_pb2.GetJournalResponse(
        present=True,
        database=status.database,
        fleet=status.fleet,
        schema_version=status.schema_version,
        created_at=timestamp(status.created_at),
        trouble=status.trouble,
        bytes=status.bytes,
        limit_bytes=status.limit_bytes,
        tables=[admin_pb2.JournalTable(name=name, rows=rows) for name, rows in sorted(status.rows.items())],
        writes=figures.writes,
        commits=figures.commits,
        refused=figures.refused,
        failed=figures.failed,
        waiting=figures.waiting,
        mean_commit=durations.to_wire(figures.commit_s / figures.commits if figures.commits else 0.0),
    )
