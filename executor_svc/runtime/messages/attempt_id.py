"""The id of one attempt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class AttemptId:
    """Identifies one attempt: one try at one leg of a request on one instance.

    An id with an older epoch than the session's belongs to an earlier life of the scheduler; its output is dropped.
    """

    epoch: int  # one life of the scheduler
    number: int  # unique within the epoch

    def __str__(self) -> str:
        return f"{self.epoch}/{self.number}"
