"""Handles of detached work: requests that need no client, and whose results the scheduler keeps."""

from __future__ import annotations

from typing import Protocol

from sage_client._async_stream import AsyncStream
from sage_client._completion import Completion
from sage_client._durations import Seconds
from sage_client._events import Accepted
from sage_client._fleet_view import Cancellation
from sage_client._request_info import RequestStatus
from sage_client._stream import Stream


class AsyncRequestCalls(Protocol):
    """The calls of a client that a handle makes; ``AsyncClient`` says what they do."""

    def attach(
        self, request_id: str, *, after_token: int = 0, tenant: str | None = None, timeout: Seconds | None = None
    ) -> AsyncStream:
        """Return a stream of a request's events."""
        ...

    async def get(self, request_id: str, *, tenant: str | None = None) -> RequestStatus:
        """Return a request's state, and its result if it has ended."""
        ...

    async def cancel(self, request_id: str, *, reason: str = "", tenant: str | None = None) -> Cancellation:
        """Cancel a request."""
        ...


class RequestCalls(Protocol):
    """The same for callers without an event loop; ``Client`` has them."""

    def attach(
        self, request_id: str, *, after_token: int = 0, tenant: str | None = None, timeout: Seconds | None = None
    ) -> Stream:
        """Return a stream of a request's events."""
        ...

    def get(self, request_id: str, *, tenant: str | None = None) -> RequestStatus:
        """Return a request's state, and its result if it has ended."""
        ...

    def cancel(self, request_id: str, *, reason: str = "", tenant: str | None = None) -> Cancellation:
        """Cancel a request."""
        ...


class AsyncDetachedRequest:
    """Detached work that the scheduler accepted.  It goes on whatever happens to the client."""

    def __init__(self, client: AsyncRequestCalls, tenant: str, accepted: Accepted) -> None:
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

    def __init__(self, client: RequestCalls, tenant: str, accepted: Accepted) -> None:
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
