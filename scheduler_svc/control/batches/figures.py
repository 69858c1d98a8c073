"""What batches did since the scheduler's start, and do now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFigures:
    """The figures of all batches."""

    unfinished: int = 0  # batches
    in_flight: int = 0  # lines that wait or run
    completed: int = 0  # lines
    failed: int = 0  # lines
    retries: int = 0  # tries of lines beyond the first
    bytes: int = 0  # of files and batches


NO_BATCHES = BatchFigures()
"""Those of a scheduler without a journal."""
