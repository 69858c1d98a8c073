"""Detached work: requests that need no client, and whose results the scheduler keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sage_client._async_stream import AsyncStream
from sage_client._completion import Completion
from sage_client._durations import Seconds
from sage_client._enums import Priority, RequestState
from sage_client._events import Accepted, Finished, TokenLogprob, Usage
from sage_client._fleet_view import Cancellation
from sage_client._plain import Plain
from sage_client._stream import Stream

if TYPE_CHECKING:
    from sage_client._async_client import AsyncClient
    from sage_client._client import Client


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestInfo(Plain):
    """A request as the scheduler knows it."""

    request_id: str
    tenant: str
    model: str
    priority: Priority
    state: RequestState
    error: str  # why it did not finish; empty if it did, or has not ended
    usage: Usage  # so far
    accepted_at: datetime
    ended_at: datetime | None  # None: it has not ended
    keep_until: datetime | None  # of detached work that ended: when its result is deleted
    detached: bool
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result(Plain):
    """What detached work generated until its end; of several choices that of choice 0, with ``choices``."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token if requested
    finished: Finished | None  # None: it ended otherwise; ``RequestInfo.error`` says why
    choices: tuple[Result, ...] = ()  # of several choices: the others, from index 1 on


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestStatus(Plain):
    """A request, and its result if it is detached and has ended."""

    request: RequestInfo
    result: Result | None  # None also where it is too large for one message
    result_in_pieces: bool  # the result is too large for one message: read it with ``attach``


class AsyncDetachedRequest:
    """Detached work that the scheduler accepted.  It goes on whatever happens to the client."""

    def __init__(self, client: AsyncClient, tenant: str, accepted: Accepted) -> None:
        self._client = client
        self.tenant = tenant  # that it belongs to; empty: the caller's only one
        self.accepted = accepted

    @property
    def request_id(self) -> str:
        """Id of the request: all that is needed to find it again."""
        return self.accepted.request_id

    def attach(self, *, after_token: int = 0, timeout: Seconds | None = None) -> AsyncStream:
        """Return a stream of its events; see ``AsyncClient.attach``."""
        return self._client.attach(self.request_id, after_token=after_token, tenant=self.tenant, timeout=timeout)

    async def get(self) -> RequestStatus:
        """Return its state, and its result if it has ended."""
        return await self._client.get(self.request_id, tenant=self.tenant)

    async def result(self, *, timeout: Seconds | None = None) -> Completion:
        """Wait for its end, over restarts of the scheduler, and return its outcome.

        Args:
            timeout: how long to wait; None: the client's ``stream_timeout``.

        Raises:
            SageError: it ended with an error.
        """
        return await self.attach(timeout=timeout).result()

    async def cancel(self, reason: str = "") -> Cancellation:
        """Cancel it; idempotent."""
        return await self._client.cancel(self.request_id, reason=reason, tenant=self.tenant)


class DetachedRequest:
    """Detached work that the scheduler accepted, for callers without an event loop."""

    def __init__(self, client: Client, tenant: str, accepted: Accepted) -> None:
        self._client = client
        self.tenant = tenant  # that it belongs to; empty: the caller's only one
        self.accepted = accepted

    @property
    def request_id(self) -> str:
        """Id of the request: all that is needed to find it again."""
        return self.accepted.request_id

    def attach(self, *, after_token: int = 0, timeout: Seconds | None = None) -> Stream:
        """Return a stream of its events; see ``AsyncClient.attach``."""
        return self._client.attach(self.request_id, after_token=after_token, tenant=self.tenant, timeout=timeout)

    def get(self) -> RequestStatus:
        """Return its state, and its result if it has ended."""
        return self._client.get(self.request_id, tenant=self.tenant)

    def result(self, *, timeout: Seconds | None = None) -> Completion:
        """Wait for its end and return its outcome; see ``AsyncDetachedRequest.result``."""
        return self.attach(timeout=timeout).result()

    def cancel(self, reason: str = "") -> Cancellation:
        """Cancel it; idempotent."""
        return self._client.cancel(self.request_id, reason=reason, tenant=self.tenant)
