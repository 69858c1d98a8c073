"""An attempt that belongs to no request: a warm-up."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.domain.attempt_end import AttemptEnd


class Guest(Protocol):
    def token(self, now: float) -> None:
        """Output arrived."""
        ...

    def ended(self, end: AttemptEnd) -> None: ...
