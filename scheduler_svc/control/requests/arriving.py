"""Submissions that are being validated, tokenized and written down: one at a time for each id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from scheduler_svc.domain.errors import RequestConflict
from scheduler_svc.domain.request import RequestKey


class _Arrival:
    __slots__ = ("digest", "done")

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.done = asyncio.Event()  # set when it is accepted or refused


class Arriving:
    """The submissions by id.  Bounded by ``IntakeSettings.arriving_limit`` and those that wait for a model."""

    def __init__(self) -> None:
        self._arrivals: dict[RequestKey, _Arrival] = {}

    def __contains__(self, key: RequestKey) -> bool:
        return key in self._arrivals

    def __len__(self) -> int:
        return len(self._arrivals)

    @contextmanager
    def one(self, key: RequestKey, digest: bytes) -> Iterator[None]:
        """Have others with this id wait until the block is over.  ``digest``: of the submission's content."""
        here = self._arrivals[key] = _Arrival(digest)
        try:
            yield
        finally:
            del self._arrivals[key]
            here.done.set()

    async def over(self, key: RequestKey, digest: bytes) -> None:
        """Wait until no submission of this id arrives.  Raises RequestConflict if one with other content does."""
        while (twin := self._arrivals.get(key)) is not None:
            if twin.digest != digest:
                raise RequestConflict(key.request_id)
            await twin.done.wait()  # bounded: the deadline is part of the content
