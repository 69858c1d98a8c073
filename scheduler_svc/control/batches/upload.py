"""One file that is being uploaded."""

from __future__ import annotations

import hashlib

from scheduler_svc.control.batches.quotas import Quotas
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.journal.batches import BatchStore, OwnedId
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest

PIECE_BYTES = 128 * 1024
"""What one row of the journal holds of a file, and what a batch that runs holds of its input in memory."""


class Upload:
    """Writes a file's content down piece by piece, and counts its bytes as they come."""

    def __init__(self, key: OwnedId, store: BatchStore, quotas: Quotas, settings: BatchSettings) -> None:
        self.key = key
        self._store = store
        self._quotas = quotas
        self._settings = settings
        self._digest = hashlib.sha256()
        self._waiting = bytearray()  # of the next piece
        self._written = 0
        self.size_bytes = 0

    @property
    def digest(self) -> bytes:
        """SHA-256 of what came so far."""
        return self._digest.digest()

    async def add(self, content: bytes) -> None:
        """Take the next bytes.  Raises InvalidRequest, TenantLimitReached, LimitReached, JournalUnavailable."""
        limit = self._settings.file_bytes
        if self.size_bytes + len(content) > limit:
            problem = f"the file has more than {limit} bytes (batches.file_bytes)"
            raise InvalidRequest([FieldViolation(field="content", description=problem)])
        self._quotas.take(self.key.tenant, size_bytes=len(content))
        self.size_bytes += len(content)
        self._digest.update(content)
        self._waiting += content
        while len(self._waiting) >= PIECE_BYTES:
            await self._write(PIECE_BYTES)

    async def finish(self) -> None:
        """Write down what is left.  Raises JournalUnavailable."""
        if self._waiting:
            await self._write(len(self._waiting))

    async def drop(self) -> None:
        """Count its bytes no more, and delete what was written down.  Raises JournalUnavailable."""
        self._quotas.add(self.key.tenant, size_bytes=-self.size_bytes)
        if self._written:
            await self._store.remove_files([self.key])

    async def _write(self, count: int) -> None:
        await self._store.add_piece(self.key, self._written, bytes(self._waiting[:count]))
        del self._waiting[:count]
        self._written += count
