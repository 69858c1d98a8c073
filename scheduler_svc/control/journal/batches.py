"""The journal's port for batches and files: what is known of each, the contents, and the lines that have a result.

Times are seconds since 1970 (wall clock).  What is returned from a write is on disk.  Every call raises
``JournalUnavailable`` if the journal cannot be written or read now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from scheduler_svc.domain.request import Priority

OUTPUT_SUFFIX, ERRORS_SUFFIX = "-output", "-errors"
"""What a batch's files are called, behind the batch's id."""

FILE_BYTES = 512
BATCH_BYTES = 1_024
"""What a file and a batch count in their tenant's bytes, besides contents."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnedId:
    """The id of a file or of a batch, with the tenant that it belongs to."""

    tenant: str
    id: str


class FilePurpose(Enum):
    """What a file is for."""

    BATCH = "batch"  # lines to be run
    BATCH_OUTPUT = "batch_output"  # results, written by a batch


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """A file, without its content."""

    key: OwnedId
    filename: str
    purpose: FilePurpose
    size_bytes: int
    digest: bytes  # SHA-256 of the content; empty for one that a batch writes
    created_at: float
    keep_until: float | None  # None: a batch writes it


class BatchState(Enum):
    """Where a batch is in its life."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self in _ENDED


_ENDED = frozenset({BatchState.COMPLETED, BatchState.FAILED, BatchState.EXPIRED, BatchState.CANCELLED})


@dataclass(frozen=True, kw_only=True, slots=True)
class LineError:
    """Why a batch cannot run."""

    code: str
    message: str
    param: str = ""
    line: int = 0  # from 1; 0: the file as a whole


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBatch:
    """A batch, without what says which lines have a result."""

    key: OwnedId
    digest: bytes  # of what its caller asked for
    input_file_id: str
    endpoint: str  # empty: each line says its own
    priority: Priority
    metadata: Mapping[str, str]
    created_at: float
    expires_at: float
    keep_s: float  # how long it and its results are kept after the end
    state: BatchState = BatchState.VALIDATING
    started_at: float | None = None
    cancelling_at: float | None = None
    ended_at: float | None = None
    total: int = 0  # lines; 0 while they are counted
    completed: int = 0
    failed: int = 0
    errors: tuple[LineError, ...] = field(default=())

    @property
    def output(self) -> OwnedId:
        """The file of the lines that succeeded, which there is once one did."""
        return OwnedId(tenant=self.key.tenant, id=self.key.id + OUTPUT_SUFFIX)

    @property
    def error_output(self) -> OwnedId:
        """The file of the lines that did not succeed, which there is once there is such a line."""
        return OwnedId(tenant=self.key.tenant, id=self.key.id + ERRORS_SUFFIX)

    @property
    def keep_until(self) -> float | None:
        """When it is deleted; None: it has not ended."""
        return None if self.ended_at is None else self.ended_at + self.keep_s


@dataclass(frozen=True, kw_only=True, slots=True)
class LineResult:
    """What became of one line."""

    index: int  # of the line among those that are not empty, from 0
    succeeded: bool
    content: bytes  # a line of the output or the error file, with its line break


@dataclass(frozen=True, kw_only=True, slots=True)
class Saved:
    """What is known after results were written down."""

    batch: StoredBatch
    files: Sequence[StoredFile]  # those of its output files that there are


class BatchStore(Protocol):
    """Files and batches."""

    async def load(self) -> tuple[Sequence[StoredFile], Sequence[StoredBatch]]:
        """Return all files and batches, and delete what is there of files whose upload never ended."""
        ...

    async def add_piece(self, key: OwnedId, first_byte: int, content: bytes) -> None:
        """Write down a piece of a file that is being uploaded; the pieces come in order."""
        ...

    async def add_file(self, file: StoredFile) -> None:
        """Write down a file whose pieces are there."""
        ...

    async def read(self, key: OwnedId, offset: int) -> bytes:
        """Return bytes of a file from a position on, as many as one piece has; empty behind its end."""
        ...

    async def remove_files(self, keys: Sequence[OwnedId]) -> None:
        """Delete files, or what was uploaded of them."""
        ...

    async def add_batch(self, batch: StoredBatch) -> None:
        """Write down a batch that is accepted."""
        ...

    async def change_batch(self, batch: StoredBatch) -> None:
        """Write down a batch's state, times, errors and number of lines.

        Once it has ended nothing of it changes any more, and its output files are kept until ``keep_until``.
        """
        ...

    async def lines_done(self, key: OwnedId) -> bytes:
        """Return which lines have a result: bit ``index % 8`` of byte ``index // 8``, which may be missing."""
        ...

    async def save(self, key: OwnedId, results: Sequence[LineResult], now: float) -> Saved | None:
        """Append results to the batch's output files, all or none of them; a line that has one gets no other.

        ``now``: when an output file begins.  None: there is no such batch, or it has ended.
        """
        ...

    async def remove_batches(self, keys: Sequence[OwnedId]) -> None:
        """Delete batches that ended, with their output files."""
        ...
