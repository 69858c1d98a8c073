"""The requests that callers may name: those in memory, in the journal, and those that may still come back."""

from __future__ import annotations

from scheduler_svc.control.requests.arriving import Arriving
from scheduler_svc.control.requests.detached_port import DetachedPort
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.errors import RequestNotFound
from scheduler_svc.domain.request import RequestKey


class KnownRequests:
    """Finds requests by their keys."""

    def __init__(
        self, requests: RequestTable, arriving: Arriving, recovery: Recovery, detached: DetachedPort | None
    ) -> None:
        """``detached``: None if there is no journal."""
        self._requests = requests
        self._arriving = arriving
        self._recovery = recovery
        self._detached = detached

    async def find(self, key: RequestKey) -> LiveRequest:
        """Return a request that is live, in the record, or in the journal.

        Raises RequestNotFound, Recovering, JournalUnavailable.
        """
        found = self.here(key)
        while found is None and self.in_journal(key):
            found = await self._recall(key)
        return found if found is not None else self.get(key)

    def get(self, key: RequestKey) -> LiveRequest:
        """Return a request that is live or in the record.  Raises RequestNotFound, Recovering."""
        found = self.here(key)
        if found is None:
            self.check_unknown(key)
            raise RequestNotFound(key.request_id)
        return found

    def here(self, key: RequestKey) -> LiveRequest | None:
        """Return a request that is in memory; None if it is not."""
        found = self._requests.find(key)
        if found is not None or self._detached is None or key in self._arriving:
            return found  # one that is written down and not accepted yet cannot be read or cancelled
        return self._detached.live(key)

    def in_journal(self, key: RequestKey) -> bool:
        """Return whether only the journal has a request, which has ended: then ``find`` brings it back."""
        known = self._detached is not None and self._detached.has_ended(key)
        return known and self.here(key) is None

    async def settled(self, key: RequestKey, digest: bytes) -> LiveRequest | None:
        """Return the request that has a submission's id, once no submission with that id is being accepted.

        ``digest``: of the submission's content.  None: there is no such request.  Raises RequestConflict.
        """
        while True:
            await self._arriving.over(key, digest)
            if not self.in_journal(key):
                return self.here(key)
            if await self._recall(key) is None:
                return None

    def check_unknown(self, key: RequestKey, model: str = "", *, fresh: bool = False) -> None:
        """Raise Recovering if a request that is not known may still come back.

        ``model``: that it is for; empty: not known.  ``fresh``: no earlier scheduler can know its id.
        """
        if not fresh:
            self._recovery.check(key, model)
        if self._detached is not None:
            self._detached.check(key)

    async def _recall(self, key: RequestKey) -> LiveRequest | None:
        """Bring a request that ended back from the journal; None if its result is deleted meanwhile."""
        assert self._detached is not None
        live = await self._detached.recall(key)
        if live is not None:
            self._requests.remember(live)
        return self.here(key)
