"""The port to detached work: what admission needs of it.  ``control.detached`` implements it."""

from __future__ import annotations

from typing import Protocol

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.request import RequestKey


class DetachedPort(Protocol):
    """Detached work, live or ended, of this scheduler and of earlier ones."""

    @property
    def default_deadline_s(self) -> float:
        """Deadline after arrival, in seconds, of requests that set none."""
        ...

    def live(self, key: RequestKey) -> LiveRequest | None:
        """Return a request of this scheduler whose end is not written down yet; None if there is none."""
        ...

    def has_ended(self, key: RequestKey) -> bool:
        """Return whether a request's end is written down."""
        ...

    def check(self, key: RequestKey) -> None:
        """Raise Recovering if a request of an earlier scheduler has not ended, and does not go on here yet."""
        ...

    async def recall(self, key: RequestKey) -> LiveRequest | None:
        """Return a request that ended, with its result; None if it is not kept.  Raises JournalUnavailable."""
        ...

    async def accept(self, live: LiveRequest, keep_s: float | None) -> None:
        """Write a request down; from then on its output and its end are.  ``keep_s``: None: the default.

        Raises InvalidRequest, TenantLimitReached, LimitReached, JournalUnavailable; then the request is not kept.
        """
        ...

    async def withdraw(self, live: LiveRequest) -> None:
        """Delete a request that was written down, and then not accepted."""
        ...
