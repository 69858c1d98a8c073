"""Batches and files in the journal."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Integer, LargeBinary, and_, bindparam, cast, func, select

from scheduler_svc.control.journal.batches import (
    BatchState,
    FilePurpose,
    LineError,
    LineResult,
    OwnedId,
    Saved,
    StoredBatch,
    StoredFile,
)
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.domain.request import Priority
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.tables.batches import BATCHES, FILE_PIECES, FILES

log = logging.getLogger(__name__)

READ_BYTES = 2**20
PIECES_AT_ONCE = 64
"""Bounds of one read, and of one write that deletes: what a batch wrote at once may be one large piece."""

_OF_FILE = and_(FILES.c.tenant == bindparam("of_tenant"), FILES.c.file_id == bindparam("of_id"))
_OF_PIECES = and_(FILE_PIECES.c.tenant == bindparam("of_tenant"), FILE_PIECES.c.file_id == bindparam("of_id"))
_OF_BATCH = and_(BATCHES.c.tenant == bindparam("of_tenant"), BATCHES.c.batch_id == bindparam("of_id"))
_ALL_BUT_LINES = [column for column in BATCHES.c if column is not BATCHES.c.lines_done]


class JournalBatchStore:
    """Implements ``control.journal.batches.BatchStore``.

    Every write may be repeated: one that was reported as failed may be on the disk all the same.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def load(self) -> tuple[Sequence[StoredFile], Sequence[StoredBatch]]:
        """Return all files and batches, and delete what is there of files whose upload never ended."""
        unfinished = await self._journal.database.read(_without_file)
        await self._remove_pieces(unfinished)
        return await self._journal.database.read(
            lambda connection: (
                [_file(row) for row in connection.execute(FILES.select())],
                [_batch(row) for row in connection.execute(select(*_ALL_BUT_LINES))],
            )
        )

    async def add_piece(self, key: OwnedId, first_byte: int, content: bytes) -> None:
        """Write down a piece of a file that is being uploaded."""

        def work(connection: Connection) -> None:
            connection.execute(FILE_PIECES.delete().where(_OF_PIECES, FILE_PIECES.c.first_byte == first_byte), _of(key))
            connection.execute(FILE_PIECES.insert(), _piece(key, first_byte, content))

        await self._journal.writer.write(work, len(content))

    async def add_file(self, file: StoredFile) -> None:
        """Write down a file whose pieces are there."""

        def work(connection: Connection) -> None:
            beyond = FILE_PIECES.c.first_byte >= file.size_bytes  # of an upload that was broken off
            connection.execute(FILE_PIECES.delete().where(_OF_PIECES, beyond), _of(file.key))
            connection.execute(FILES.delete().where(_OF_FILE), _of(file.key))
            connection.execute(FILES.insert(), _file_row(file))

        await self._journal.writer.write(work)

    async def read(self, key: OwnedId, offset: int) -> bytes:
        """Return bytes of a file from a position on, at most READ_BYTES and one piece; none behind its end."""

        def work(connection: Connection) -> bytes:
            place = cast(offset - FILE_PIECES.c.first_byte + 1, Integer)  # PostgreSQL's substr takes no larger one
            wanted = (
                select(func.substr(FILE_PIECES.c.content, place, READ_BYTES, type_=LargeBinary))
                .where(_OF_PIECES, FILE_PIECES.c.first_byte <= offset)
                .order_by(FILE_PIECES.c.first_byte.desc())
                .limit(1)
            )
            return bytes(connection.execute(wanted, _of(key)).scalar_one_or_none() or b"")

        return await self._journal.database.read(work)

    async def remove_files(self, keys: Sequence[OwnedId]) -> None:
        """Delete files, or what was uploaded of them."""
        if keys:

            def work(connection: Connection) -> None:
                connection.execute(FILES.delete().where(_OF_FILE), [_of(key) for key in keys])

            await self._journal.writer.write(work, frees=True)
            await self._remove_pieces(keys)

    async def add_batch(self, batch: StoredBatch) -> None:
        """Write down a batch that is accepted."""

        def work(connection: Connection) -> None:
            connection.execute(BATCHES.delete().where(_OF_BATCH), _of(batch.key))
            named = {"tenant": batch.key.tenant, "batch_id": batch.key.id, "lines_done": b""}
            connection.execute(BATCHES.insert(), named | _constant(batch) | _change(batch) | _counts(batch))

        await self._journal.writer.write(work)

    async def change_batch(self, batch: StoredBatch) -> None:
        """Write down a batch's state, times, errors and number of lines, unless it has ended."""

        def work(connection: Connection) -> None:
            changed = connection.execute(
                BATCHES.update().where(_OF_BATCH, BATCHES.c.ended.is_(False)), _of(batch.key) | _change(batch)
            )
            if changed.rowcount and batch.ended_at is not None:
                outputs = [_of(key) for key in (batch.output, batch.error_output)]
                for each in outputs:
                    connection.execute(FILES.update().where(_OF_FILE), each | {"keep_until": batch.keep_until})

        await self._journal.writer.write(work)

    async def lines_done(self, key: OwnedId) -> bytes:
        """Return which lines have a result: bit ``index % 8`` of byte ``index // 8``."""

        def work(connection: Connection) -> bytes:
            found = connection.execute(select(BATCHES.c.lines_done).where(_OF_BATCH), _of(key)).scalar_one_or_none()
            return bytes(found or b"")

        return await self._journal.database.read(work)

    async def save(self, key: OwnedId, results: Sequence[LineResult], now: float) -> Saved | None:
        """Append results to the batch's output files; a line that has one gets no other."""
        size = sum(len(each.content) for each in results)
        return await self._journal.writer.write(lambda connection: _save(connection, key, results, now), size)

    async def remove_batches(self, keys: Sequence[OwnedId]) -> None:
        """Delete batches that ended, with their output files."""

        def work(connection: Connection) -> list[OwnedId]:
            outputs: list[OwnedId] = []
            for key in keys:
                row = connection.execute(select(*_ALL_BUT_LINES).where(_OF_BATCH), _of(key)).one_or_none()
                if row is not None:
                    outputs += [_batch(row).output, _batch(row).error_output]
                    connection.execute(BATCHES.delete().where(_OF_BATCH), _of(key))
            for each in outputs:
                connection.execute(FILES.delete().where(_OF_FILE), _of(each))
            return outputs

        if keys:
            await self._remove_pieces(await self._journal.writer.write(work, frees=True))

    async def _remove_pieces(self, keys: Sequence[OwnedId]) -> None:
        """Delete contents that belong to no file, a few pieces in each write: others have their turn in between.

        What cannot be deleted now is, at the next start.
        """
        try:
            for key in keys:
                while await self._journal.writer.write(partial(_remove_pieces, key=key), frees=True) == PIECES_AT_ONCE:
                    pass
        except JournalUnavailable as error:
            log.warning("contents of deleted files go at the next start: %s", error)


# --- writes, in the writer's thread -------------------------------------------------------------------


def _remove_pieces(connection: Connection, key: OwnedId) -> int:
    """Delete some pieces of a file; return how many."""
    some = select(FILE_PIECES.c.first_byte).where(_OF_PIECES).order_by(FILE_PIECES.c.first_byte).limit(PIECES_AT_ONCE)
    wanted = FILE_PIECES.delete().where(_OF_PIECES, FILE_PIECES.c.first_byte.in_(some.scalar_subquery()))
    return connection.execute(wanted, _of(key)).rowcount


def _save(connection: Connection, key: OwnedId, results: Sequence[LineResult], now: float) -> Saved | None:
    row = connection.execute(BATCHES.select().where(_OF_BATCH), _of(key)).one_or_none()
    if row is None or row.ended:
        return None
    batch, done = _batch(row), bytearray(row.lines_done)
    done.extend(bytes(max(0, (batch.total + 7) // 8 - len(done))))
    new = [each for each in results if _mark(done, each.index)]
    batch = replace(
        batch,
        completed=batch.completed + sum(each.succeeded for each in new),
        failed=batch.failed + sum(not each.succeeded for each in new),
    )
    files = []
    for target, succeeded in ((batch.output, True), (batch.error_output, False)):
        content = b"".join(each.content for each in new if each.succeeded is succeeded)
        file = _appended(connection, target, content, now)
        if file is not None:
            files.append(file)
    connection.execute(BATCHES.update().where(_OF_BATCH), _of(key) | _counts(batch) | {"lines_done": bytes(done)})
    return Saved(batch=batch, files=files)


def _mark(done: bytearray, index: int) -> bool:
    """Note that a line has a result; return False if it had one."""
    bit = 1 << (index % 8)
    if done[index // 8] & bit:
        return False
    done[index // 8] |= bit
    return True


def _appended(connection: Connection, key: OwnedId, content: bytes, now: float) -> StoredFile | None:
    """Return a batch's file with ``content`` at its end; None if there is nothing of it."""
    row = connection.execute(FILES.select().where(_OF_FILE), _of(key)).one_or_none()
    if row is None and not content:
        return None
    file = _file(row) if row is not None else _new_output(key, now)
    if row is None:  # an earlier batch of this id may have left contents that could not be deleted
        connection.execute(FILE_PIECES.delete().where(_OF_PIECES), _of(key))
    if content:
        connection.execute(FILE_PIECES.insert(), _piece(key, file.size_bytes, content))
        file = replace(file, size_bytes=file.size_bytes + len(content))
        if row is None:
            connection.execute(FILES.insert(), _file_row(file))
        else:
            connection.execute(FILES.update().where(_OF_FILE), _of(key) | {"size_bytes": file.size_bytes})
    return file


def _new_output(key: OwnedId, now: float) -> StoredFile:
    return StoredFile(
        key=key,
        filename=f"{key.id}.jsonl",
        purpose=FilePurpose.BATCH_OUTPUT,
        size_bytes=0,
        digest=b"",
        created_at=now,
        keep_until=None,
    )


def _without_file(connection: Connection) -> list[OwnedId]:
    """Return what pieces belong to that belong to no file: to uploads that never ended, or files half deleted."""
    known = select(FILES.c.file_id).where(
        FILES.c.tenant == FILE_PIECES.c.tenant, FILES.c.file_id == FILE_PIECES.c.file_id
    )
    wanted = select(FILE_PIECES.c.tenant, FILE_PIECES.c.file_id).distinct().where(~known.exists())
    return [OwnedId(tenant=row.tenant, id=row.file_id) for row in connection.execute(wanted)]


# --- rows ---------------------------------------------------------------------------------------------


def _of(key: OwnedId) -> dict[str, Any]:
    return {"of_tenant": key.tenant, "of_id": key.id}


def _piece(key: OwnedId, first_byte: int, content: bytes) -> dict[str, Any]:
    return {"tenant": key.tenant, "file_id": key.id, "first_byte": first_byte, "content": content}


def _file_row(file: StoredFile) -> dict[str, Any]:
    return {
        "tenant": file.key.tenant,
        "file_id": file.key.id,
        "filename": file.filename,
        "purpose": file.purpose.value,
        "size_bytes": file.size_bytes,
        "digest": file.digest,
        "created_at": file.created_at,
        "keep_until": file.keep_until,
    }


def _file(row: Any) -> StoredFile:
    return StoredFile(
        key=OwnedId(tenant=row.tenant, id=row.file_id),
        filename=row.filename,
        purpose=FilePurpose(row.purpose),
        size_bytes=row.size_bytes,
        digest=bytes(row.digest),
        created_at=row.created_at,
        keep_until=row.keep_until,
    )


def _constant(batch: StoredBatch) -> dict[str, Any]:
    return {
        "digest": batch.digest,
        "input_file_id": batch.input_file_id,
        "endpoint": batch.endpoint,
        "priority": batch.priority.name,
        "metadata": json.dumps(dict(batch.metadata)),
        "created_at": batch.created_at,
        "expires_at": batch.expires_at,
        "keep_s": batch.keep_s,
    }


def _change(batch: StoredBatch) -> dict[str, Any]:
    return {
        "state": batch.state.value,
        "ended": batch.state.ended,
        "started_at": batch.started_at,
        "cancelling_at": batch.cancelling_at,
        "ended_at": batch.ended_at,
        "total": batch.total,
        "errors": json.dumps([asdict(each) for each in batch.errors]),
    }


def _counts(batch: StoredBatch) -> dict[str, Any]:
    return {"completed": batch.completed, "failed": batch.failed}


def _batch(row: Any) -> StoredBatch:
    return StoredBatch(
        key=OwnedId(tenant=row.tenant, id=row.batch_id),
        digest=bytes(row.digest),
        input_file_id=row.input_file_id,
        endpoint=row.endpoint,
        priority=Priority[row.priority],
        metadata=json.loads(row.metadata),
        created_at=row.created_at,
        expires_at=row.expires_at,
        keep_s=row.keep_s,
        state=BatchState(row.state),
        started_at=row.started_at,
        cancelling_at=row.cancelling_at,
        ended_at=row.ended_at,
        total=row.total,
        completed=row.completed,
        failed=row.failed,
        errors=tuple(LineError(**each) for each in json.loads(row.errors)),
    )
