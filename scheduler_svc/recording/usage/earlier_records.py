"""What an earlier scheduler wrote into the usage file about requests whose ends come again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from scheduler_svc.control.journal.usage import ADOPTED_LATER_S, ARRIVAL_S, UsageRecord

_End = tuple[str, str, str, int]
"""Tenant, id, end and output tokens: an id may be used again."""


class EarlierRecords:
    """The last records of the file, by request.

    An executor keeps the end of a request until its readers have it, so the next scheduler is told it once more.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        """Read the lines of the file; what is no record is left out."""
        self._arrivals: dict[_End, list[float]] = {}
        self._until = 0.0  # seconds since 1970: no end comes again later
        for line in lines:
            self._take(line)

    def without_known(self, records: Sequence[UsageRecord]) -> list[UsageRecord]:
        """Return the records of requests whose ends the file does not have."""
        if self._arrivals and records and records[-1].ended_at > self._until:
            self._arrivals.clear()
        return [each for each in records if not (each.adopted and self._has(each))]

    def _take(self, line: bytes) -> None:
        try:
            found = json.loads(line)
            key = (found["tenant"], found["request_id"], found["end"], found["output_tokens"])
            arrived_at = float(found["arrived_at"])
            self._until = max(self._until, float(found["ended_at"]) + ADOPTED_LATER_S)
        except (ValueError, TypeError, KeyError):
            return
        self._arrivals.setdefault(key, []).append(arrived_at)

    def _has(self, record: UsageRecord) -> bool:
        known = self._arrivals.get((record.tenant, record.request_id, record.end, record.output_tokens), ())
        return any(abs(arrived_at - record.arrived_at) <= ARRIVAL_S for arrived_at in known)
