"""One caller at a time for each id."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler_svc.control.journal.batches import OwnedId
from scheduler_svc.domain.errors import LimitReached, TenantLimitReached

TENANT_RETRY_S = 5.0
"""After how many seconds a tenant at its limit is asked to try again: one of its callers may be done by then."""


class Turns:
    """Lets the second of two callers that mean the same id go on once the first is done."""

    def __init__(self, limit: int, what: str, *, tenant_limit: int | None = None, limit_name: str = "") -> None:
        """``limit``: ids that are worked on at the same time; ``what``: in words, for the error.

        ``tenant_limit``: how many of them are one tenant's, None: any; ``limit_name``: its key in the configuration.
        """
        self._limit = limit
        self._what = what
        self._tenant_limit = limit if tenant_limit is None else tenant_limit
        self._limit_name = limit_name
        self._taken = Counter[str]()  # places by tenant
        self._busy: dict[OwnedId, asyncio.Event] = {}  # set when its caller is done

    def __len__(self) -> int:
        return len(self._busy)

    @asynccontextmanager
    async def turn(self, key: OwnedId, *, bounded: bool = True) -> AsyncIterator[None]:
        """Wait for the turn of this caller; callers bound how long they keep it.

        ``bounded``: False for what is let in however many ids are worked on, and takes no place of
        the others.  Raises TenantLimitReached, LimitReached.
        """
        while (other := self._busy.get(key)) is not None:
            await other.wait()
        if bounded:
            self._take(key.tenant)
        done = self._busy[key] = asyncio.Event()
        try:
            yield
        finally:
            del self._busy[key]
            done.set()
            if bounded:
                self._give_back(key.tenant)

    def _take(self, tenant: str) -> None:
        if self._taken[tenant] >= self._tenant_limit:
            raise TenantLimitReached(tenant, self._limit_name, self._tenant_limit, TENANT_RETRY_S)
        if self._taken.total() >= self._limit:
            raise LimitReached(self._what, self._limit)
        self._taken[tenant] += 1

    def _give_back(self, tenant: str) -> None:
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]
