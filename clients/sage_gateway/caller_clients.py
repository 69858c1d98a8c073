"""The connections to the scheduler: one for each caller's token, because the scheduler judges callers by it."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sage_client import AsyncClient, LimitReachedError

LIMIT = 256
"""Callers with a connection of their own; beyond it, the one that was idle longest loses its connection."""

TOKEN_LIMIT = 8_192
"""Longest token, in characters; the scheduler refuses longer ones."""


def unusable_token(token: str) -> str:
    """Return why a caller's token cannot be sent to the scheduler; empty if it can."""
    if len(token) > TOKEN_LIMIT:
        return f"the bearer token is longer than {TOKEN_LIMIT} characters"
    if not (token.isascii() and token.isprintable()):
        return "the bearer token holds characters that no token has"
    return ""


class CallerClients:
    """Clients of the scheduler by their callers' tokens.  Belongs to one event loop."""

    def __init__(self, open_client: Callable[[str], AsyncClient], limit: int = LIMIT) -> None:
        self._open = open_client
        self._limit = limit
        self._clients: OrderedDict[str, AsyncClient] = OrderedDict()  # the one used last is last
        self._used: Counter[str] = Counter()  # requests that run, by token
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._clients)

    @contextmanager
    def of(self, token: str) -> Iterator[AsyncClient]:
        """Give the client of a caller, which stays open while the block runs.

        Raises:
            LimitReachedError: too many callers have requests that run.
            ConfigurationError: the token cannot be sent.
        """
        client = self._client(token)
        self._used[token] += 1
        try:
            yield client
        finally:
            self._used[token] -= 1
            if not self._used[token]:
                del self._used[token]

    async def close(self) -> None:
        """Close all connections; requests that run end."""
        clients, self._clients = self._clients, OrderedDict()
        await asyncio.gather(*(each.close() for each in clients.values()), *self._closing, return_exceptions=True)

    def _client(self, token: str) -> AsyncClient:
        client = self._clients.get(token)
        if client is None:
            self._make_room()
            client = self._clients[token] = self._open(token)
        self._clients.move_to_end(token)
        return client

    def _make_room(self) -> None:
        """Close the connection that was idle longest, if all places are taken.  Raises LimitReachedError."""
        if len(self._clients) < self._limit:
            return
        idle = next((token for token in self._clients if token not in self._used), None)
        if idle is None:
            raise LimitReachedError(f"{self._limit} callers have requests at this gateway", reason="LIMIT_REACHED")
        closing = asyncio.ensure_future(self._clients.pop(idle).close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
