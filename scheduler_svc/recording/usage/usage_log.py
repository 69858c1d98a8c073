"""The port to what sends usage records to a collector of logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scheduler_svc.control.journal.usage import UsageRecord


class UsageLog(Protocol):
    """Sends records in a thread of its own; ``telemetry.usage_log`` implements it."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Records that were delivered, that found no room, and that were not delivered."""
        ...

    def start(self) -> None:
        """Start the thread."""
        ...

    def put(self, records: Sequence[UsageRecord]) -> None:
        """Queue records, without waiting."""
        ...

    def close(self) -> None:
        """Send what is queued; blocks for about a second at most."""
        ...
