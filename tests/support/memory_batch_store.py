"""A store of batches and files in memory; it outlives the schedulers of a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scheduler_svc.control.journal.batches import FilePurpose, LineResult, OwnedId, Saved, StoredBatch, StoredFile
from scheduler_svc.domain.errors import JournalUnavailable


@dataclass
class MemoryBatchStore:
    """Implements BatchStore.  While ``trouble`` has words, nothing can be written."""

    files: dict[OwnedId, StoredFile] = field(default_factory=dict)
    pieces: dict[OwnedId, list[tuple[int, bytes]]] = field(default_factory=dict)
    batches: dict[OwnedId, StoredBatch] = field(default_factory=dict)
    done: dict[OwnedId, set[int]] = field(default_factory=dict)
    trouble: str = ""
    saves: int = 0

    async def load(self) -> tuple[Sequence[StoredFile], Sequence[StoredBatch]]:
        for key in set(self.pieces) - set(self.files):
            del self.pieces[key]
        return list(self.files.values()), list(self.batches.values())

    async def add_piece(self, key: OwnedId, first_byte: int, content: bytes) -> None:
        self._check()
        others = [each for each in self.pieces.get(key, []) if each[0] != first_byte]
        self.pieces[key] = sorted([*others, (first_byte, content)])

    async def add_file(self, file: StoredFile) -> None:
        self._check()
        self.pieces[file.key] = [each for each in self.pieces.get(file.key, []) if each[0] < file.size_bytes]
        self.files[file.key] = file

    async def read(self, key: OwnedId, offset: int) -> bytes:
        for first_byte, content in reversed(self.pieces.get(key, [])):
            if first_byte <= offset:
                return content[offset - first_byte :]
        return b""

    async def remove_files(self, keys: Sequence[OwnedId]) -> None:
        self._check()
        for key in keys:
            self.files.pop(key, None)
            self.pieces.pop(key, None)

    async def add_batch(self, batch: StoredBatch) -> None:
        self._check()
        self.batches[batch.key] = batch
        self.done[batch.key] = set()

    async def change_batch(self, batch: StoredBatch) -> None:
        self._check()
        known = self.batches[batch.key]
        if known.state.ended:
            return
        self.batches[batch.key] = replace(batch, completed=known.completed, failed=known.failed)
        if batch.ended_at is not None:
            for key in (batch.output, batch.error_output):
                if key in self.files:
                    self.files[key] = replace(self.files[key], keep_until=batch.keep_until)

    async def lines_done(self, key: OwnedId) -> bytes:
        found = bytearray()
        for index in self.done.get(key, ()):
            found.extend(bytes(max(0, index // 8 + 1 - len(found))))
            found[index // 8] |= 1 << (index % 8)
        return bytes(found)

    async def save(self, key: OwnedId, results: Sequence[LineResult], now: float) -> Saved | None:
        self._check()
        self.saves += 1
        batch = self.batches.get(key)
        if batch is None or batch.state.ended:
            return None
        for each in results:
            if each.index in self.done[key]:
                continue
            self.done[key].add(each.index)
            target = batch.output if each.succeeded else batch.error_output
            self._append(target, each.content, now)
            batch = replace(
                batch, completed=batch.completed + each.succeeded, failed=batch.failed + (not each.succeeded)
            )
        self.batches[key] = batch
        outputs = (batch.output, batch.error_output)
        return Saved(batch=batch, files=[self.files[each] for each in outputs if each in self.files])

    async def remove_batches(self, keys: Sequence[OwnedId]) -> None:
        for key in keys:
            batch = self.batches.pop(key, None)
            if batch is not None:
                await self.remove_files([batch.output, batch.error_output])

    def content(self, key: OwnedId) -> bytes:
        """Return all of a file."""
        return b"".join(content for _, content in self.pieces.get(key, []))

    def _append(self, key: OwnedId, content: bytes, now: float) -> None:
        file = self.files.get(key) or StoredFile(
            key=key,
            filename=f"{key.id}.jsonl",
            purpose=FilePurpose.BATCH_OUTPUT,
            size_bytes=0,
            digest=b"",
            created_at=now,
            keep_until=None,
        )
        self.pieces.setdefault(key, []).append((file.size_bytes, content))
        self.files[key] = replace(file, size_bytes=file.size_bytes + len(content))

    def _check(self) -> None:
        if self.trouble:
            raise JournalUnavailable(self.trouble)
