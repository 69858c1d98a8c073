"""The files that the scheduler keeps for tenants: uploaded ones, and those that batches write."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace

from scheduler_svc.control.batches.quotas import Quotas
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.batches.turns import Turns
from scheduler_svc.control.batches.upload import Upload
from scheduler_svc.control.journal.batches import (
    ERRORS_SUFFIX,
    FILE_BYTES,
    OUTPUT_SUFFIX,
    BatchStore,
    FilePurpose,
    OwnedId,
    StoredFile,
)
from scheduler_svc.domain.errors import (
    FieldViolation,
    FileNotFound,
    InvalidRequest,
    InvalidTransition,
    JournalUnavailable,
    RequestConflict,
)

log = logging.getLogger(__name__)


class Files:
    """What is known of each file, in memory; contents are in the journal.  Bounded by ``BatchSettings``."""

    def __init__(
        self, store: BatchStore, quotas: Quotas, settings: BatchSettings, wall_clock: Callable[[], float]
    ) -> None:
        """``wall_clock``: seconds since 1970."""
        self._store = store
        self._quotas = quotas
        self._settings = settings
        self._wall_clock = wall_clock
        self._files: dict[OwnedId, StoredFile] = {}
        self._readers: dict[OwnedId, int] = {}  # batches that have not ended, by the file that they read
        self._uploads = Turns(
            settings.uploads,
            "files that are uploaded at the same time (batches.uploads)",
            tenant_limit=settings.tenant_uploads,
            limit_name="batches.tenant_uploads",
        )

    def load(self, files: Sequence[StoredFile]) -> None:
        """Take what the journal has."""
        for each in files:
            self.note(each)

    def find(self, key: OwnedId) -> StoredFile:
        """Return a file.  Raises FileNotFound."""
        file = self._files.get(key)
        if file is None:
            raise FileNotFound(key.id)
        return file

    def knows(self, key: OwnedId) -> bool:
        """Return whether there is a file of this id."""
        return key in self._files

    def of_tenant(self, tenant: str) -> Iterator[StoredFile]:
        """Yield the files of a tenant."""
        return (file for key, file in self._files.items() if key.tenant == tenant)

    def keep_until(self, file: StoredFile) -> float | None:
        """Return when a file is deleted; None: a batch that has not ended reads or writes it."""
        return None if file.key in self._readers else file.keep_until

    async def read(self, key: OwnedId, offset: int) -> bytes:
        """Return the next bytes of a file from a position on; empty at its end.  Raises JournalUnavailable."""
        return await self._store.read(key, offset)

    async def upload(
        self, key: OwnedId, filename: str, keep_s: float | None, pieces: AsyncIterator[bytes]
    ) -> tuple[StoredFile, bool]:
        """Take a file; the flag is True if a file with this id and content was there.

        ``keep_s``: None: the default.  Raises InvalidRequest, RequestConflict, TenantLimitReached, LimitReached,
        JournalUnavailable, and what ``pieces`` raises; then nothing is kept.
        """
        keep_s = checked_keep("file.keep", keep_s, self._settings)
        if key.id.endswith((OUTPUT_SUFFIX, ERRORS_SUFFIX)):
            problem = f"ends with {OUTPUT_SUFFIX} or {ERRORS_SUFFIX}, as only files that batches write do"
            raise InvalidRequest([FieldViolation(field="file.file_id", description=problem)])
        async with self._uploads.turn(key):  # bounded: one whose client sends nothing ends
            known = self._files.get(key)
            if known is not None:
                return await _same(known, pieces), True
            self._quotas.take(key.tenant, files=1, size_bytes=FILE_BYTES)
            upload = Upload(key, self._store, self._quotas, self._settings)
            try:
                async for content in pieces:
                    await upload.add(content)
                await upload.finish()
                now = self._wall_clock()
                file = StoredFile(
                    key=key,
                    filename=filename,
                    purpose=FilePurpose.BATCH,
                    size_bytes=upload.size_bytes,
                    digest=upload.digest,
                    created_at=now,
                    keep_until=now + keep_s,
                )
                await self._store.add_file(file)
            except BaseException:
                self._quotas.add(key.tenant, files=-1, size_bytes=-FILE_BYTES)
                await _dropped(upload)
                raise
            self._files[key] = file
            return file, False

    async def delete(self, key: OwnedId) -> None:
        """Delete a file.  Raises FileNotFound, InvalidTransition, JournalUnavailable."""
        async with self._uploads.turn(key, bounded=False):  # a new file of this id has contents once the old one's go
            file = self.find(key)
            if self.keep_until(file) is None:
                raise InvalidTransition(f"file {key.id!r}", "in use by a batch that has not ended", "deleted")
            await self._remove(file)

    async def expire(self) -> None:
        """Delete the uploaded files whose time is over; others go with their batch.  Raises JournalUnavailable."""
        for key in [each.key for each in self._files.values() if self._over(each)]:
            async with self._uploads.turn(key, bounded=False):
                file = self._files.get(key)
                if file is not None and self._over(file):
                    await self._remove(file)

    def _over(self, file: StoredFile) -> bool:
        """Return whether the time of an uploaded file is over."""
        until = self.keep_until(file)
        return file.purpose is FilePurpose.BATCH and until is not None and until <= self._wall_clock()

    async def _remove(self, file: StoredFile) -> None:
        """Delete a file, which nobody finds from here on.  Raises JournalUnavailable: it is there again."""
        self.forget(file.key)
        try:
            await self._store.remove_files([file.key])
        except JournalUnavailable:
            self.note(file)
            raise

    # --- what batches do ----------------------------------------------------------------------------

    def begin_reading(self, key: OwnedId) -> None:
        """Keep a file for a batch."""
        self._readers[key] = self._readers.get(key, 0) + 1

    def end_reading(self, key: OwnedId) -> None:
        """Keep a file no longer for a batch."""
        self._readers[key] -= 1
        if not self._readers[key]:
            del self._readers[key]

    def settle(self, outputs: Sequence[OwnedId], keep_until: float | None) -> None:
        """Note until when the files are kept that a batch wrote, which has ended."""
        for key in outputs:
            if (file := self._files.get(key)) is not None:
                self._files[key] = replace(file, keep_until=keep_until)

    def note(self, file: StoredFile) -> None:
        """Take what is known of a file that is written down, new or changed."""
        before = self._files.get(file.key)
        self._files[file.key] = file
        added = file.size_bytes - (before.size_bytes if before is not None else 0)
        uploaded = before is None and file.purpose is FilePurpose.BATCH
        self._quotas.add(file.key.tenant, files=int(uploaded), size_bytes=added + (FILE_BYTES if before is None else 0))

    def forget(self, key: OwnedId) -> None:
        """Count a file no more that is deleted; nothing happens if it is not known."""
        file = self._files.pop(key, None)
        if file is not None:
            uploaded = file.purpose is FilePurpose.BATCH
            self._quotas.add(key.tenant, files=-int(uploaded), size_bytes=-file.size_bytes - FILE_BYTES)


async def _same(known: StoredFile, pieces: AsyncIterator[bytes]) -> StoredFile:
    """Return a file if its content is what comes.  Raises RequestConflict."""
    digest, size = hashlib.sha256(), 0
    async for content in pieces:
        digest.update(content)
        size += len(content)
        if size > known.size_bytes:
            break
    if size != known.size_bytes or digest.digest() != known.digest:
        raise RequestConflict(known.key.id, what="file")
    return known


async def _dropped(upload: Upload) -> None:
    """Delete what was uploaded, also if the caller is cancelled; what cannot be deleted is, at the next start."""
    try:
        await asyncio.shield(asyncio.ensure_future(upload.drop()))
    except JournalUnavailable as error:
        log.warning("the rest of an upload is deleted at the next start: %s", error)


def checked_keep(field: str, keep_s: float | None, settings: BatchSettings) -> float:
    """Return how long something is kept, in seconds.  Raises InvalidRequest."""
    limit_s = settings.keep_limit_s
    if keep_s is None:
        return min(settings.keep_s, limit_s)
    if not 0 < keep_s <= limit_s:
        problem = f"is {keep_s:g} s; it must be positive and at most {limit_s:g} s (batches.keep_limit_s)"
        raise InvalidRequest([FieldViolation(field=field, description=problem)])
    return keep_s
