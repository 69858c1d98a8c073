"""Keeps detached work in memory, as the journal does on disk; it outlives the schedulers of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scheduler_svc.control.journal.detached import (
    Checkpoint,
    DetachedEnd,
    DetachedRequest,
    DetachedSummary,
    ListedRequest,
    OutputFacts,
    OutputPiece,
    Page,
    StoredChoice,
    StoredRequest,
)
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.domain.request import RequestKey, RequestState

RUNNING = frozenset({RequestState.QUEUED, RequestState.RUNNING})


@dataclass
class _Row:
    request: DetachedRequest
    facts: OutputFacts = field(default_factory=OutputFacts)
    pieces: list[OutputPiece] = field(default_factory=list)
    end: DetachedEnd | None = None
    size_bytes: int = 0
    others: dict[int, StoredChoice] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(len(piece.token_ids) for piece in self.pieces)

    def save(self, checkpoint: Checkpoint) -> None:
        made, choice = checkpoint.piece, checkpoint.key.choice
        if not choice:
            self.facts, self.end = checkpoint.facts, checkpoint.end
            self.pieces += [] if made is None else [made]
            return
        before = self.others.get(choice, StoredChoice())
        pieces = [*before.pieces, *([] if made is None else [made])]
        self.others[choice] = StoredChoice(facts=checkpoint.facts, pieces=pieces, end=checkpoint.end)

    @property
    def summary(self) -> DetachedSummary:
        return DetachedSummary(
            key=self.request.key,
            model=self.request.model,
            accepted_at=self.request.accepted_at,
            output_tokens=self.tokens + sum(each.tokens for each in self.others.values()),
            size_bytes=self.size_bytes,
            state=self.end.state if self.end else None,
            ended_at=self.end.ended_at if self.end else None,
            keep_until=self.end.keep_until if self.end else None,
        )

    @property
    def stored(self) -> StoredRequest:
        return StoredRequest(
            request=self.request, facts=self.facts, pieces=tuple(self.pieces), end=self.end, others=dict(self.others)
        )


class MemoryDetachedStore:
    """Implements ``DetachedStore``."""

    def __init__(self) -> None:
        self.rows: dict[RequestKey, _Row] = {}
        self.trouble = ""  # why nothing can be written or read; empty: it can
        self.closed = False  # the process that wrote is gone: nothing of it arrives any more
        self.writes = 0
        self.refuses: RequestKey | None = None  # a write with output of this request fails, for what is in it
        self.refused = 0
        self.held: asyncio.Event | None = None  # writes wait for it

    async def add(self, request: DetachedRequest, whole: Sequence[Checkpoint] = ()) -> None:
        await self._write()
        self.rows[request.key] = _Row(request, size_bytes=request.size_bytes)
        self._save(whole)

    async def remove(self, keys: Sequence[RequestKey]) -> None:
        await self._write()
        for key in keys:
            self.rows.pop(key, None)

    async def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        await self._write()
        if self.refuses in [each.key._replace(choice=0) for each in checkpoints]:
            self.refused += 1
            raise ValueError("the database does not take that")
        self._save(checkpoints)

    def _save(self, checkpoints: Sequence[Checkpoint]) -> None:
        found = {key: self.rows.get(key) for key in {each.key._replace(choice=0) for each in checkpoints}}
        rows = {key: row for key, row in found.items() if row is not None and row.end is None}
        for each in checkpoints:
            row = rows.get(each.key._replace(choice=0))
            if row is None:
                continue
            if each.piece is not None:
                have = row.stored.choice(each.key.choice).tokens
                assert each.piece.first_index == have
            row.save(each)
            row.size_bytes += each.size_bytes

    async def summaries(self) -> Sequence[DetachedSummary]:
        self._check()
        return [replace(row.summary, output_tokens=row.tokens) for row in self.rows.values()]

    async def unfinished(self) -> Sequence[StoredRequest]:
        self._check()
        return [row.stored for row in self.rows.values() if row.end is None]

    async def find(self, key: RequestKey) -> StoredRequest | None:
        self._check()
        row = self.rows.get(key)
        return row.stored if row is not None else None

    async def page(self, page: Page) -> Sequence[ListedRequest]:
        self._check()
        found = [row for row in self.rows.values() if _wanted(row, page)]
        found.sort(key=_order, reverse=True)
        return [ListedRequest(row.summary, row.request.about, _outcome(row)) for row in found[: page.limit]]

    async def _write(self) -> None:
        if self.held is not None:
            await self.held.wait()
        await asyncio.sleep(0)
        self._check()
        self.writes += 1

    def _check(self) -> None:
        if self.trouble:
            raise JournalUnavailable(self.trouble)


def _order(row: _Row) -> tuple[float, str]:
    return row.request.accepted_at, row.request.key.request_id


def _wanted(row: _Row, page: Page) -> bool:
    request, state = row.request, row.end.state if row.end else None
    return (
        request.key.tenant == page.tenant
        and (not page.model or request.model == page.model)
        and (not page.states or (state in page.states if state else bool(RUNNING & set(page.states))))
        and (page.before is None or _order(row) < page.before)
    )


def _outcome(row: _Row) -> bytes:
    failed = row.end is not None and row.end.state is not RequestState.FINISHED
    return row.end.outcome if row.end is not None and failed else b""
