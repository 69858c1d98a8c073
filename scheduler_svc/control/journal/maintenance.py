"""The port through which operators look at the journal and look after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalFigures:
    """What the journal did since the scheduler's start."""

    writes: int = 0  # committed
    commits: int = 0  # transactions
    refused: int = 0  # writes refused for want of a journal that works, or of room to wait
    failed: int = 0  # writes whose transaction failed
    waiting: int = 0  # writes, now
    commit_s: float = 0.0  # time in transactions, all together


@dataclass(frozen=True, kw_only=True, slots=True)
class JournalStatus:
    """What the journal is and holds."""

    database: str  # its URL without the password
    fleet: str
    schema_version: int
    created_at: float  # seconds since 1970
    trouble: str  # why nothing can be written now, in words; empty while it works
    bytes: int  # 0 while it cannot be read
    limit_bytes: int  # of a SQLite file; 0: not bounded here
    rows: dict[str, int]  # by table; empty while it cannot be read


class JournalMaintenance(Protocol):
    """Looks at the journal, and after it; ``storage.journal.maintenance`` implements it."""

    @property
    def trouble(self) -> str:
        """Why nothing can be written now, in words; empty while the journal works."""
        ...

    @property
    def figures(self) -> JournalFigures:
        """What it did since the start."""
        ...

    async def status(self) -> JournalStatus:
        """Return what the journal is and holds; it does not fail."""
        ...

    async def compact(self) -> tuple[int, int]:
        """Give unused space back; return the bytes before and after.  Raises JournalUnavailable."""
        ...

    def export(self, tables: Collection[str]) -> AsyncIterator[Sequence[str]]:
        """Give the rows of these tables, or of all, in pages of JSON lines.

        Raises JournalUnavailable, and InvalidRequest for a table that is not there.
        """
        ...
