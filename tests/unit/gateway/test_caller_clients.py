"""Each caller's token has a connection of its own, and connections are bounded."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from sage_client import AsyncClient, LimitReachedError
from sage_gateway.caller_clients import CallerClients


class Opened:
    def __init__(self) -> None:
        self.open: dict[str, bool] = {}

    def __call__(self, token: str) -> AsyncClient:
        self.open[token] = True
        opened = self.open

        class Client:
            async def close(self) -> None:
                opened[token] = False

        return cast(AsyncClient, Client())


async def test_a_caller_keeps_its_connection() -> None:
    opened = Opened()
    clients = CallerClients(opened)
    with clients.of("a") as first, clients.of("a") as second, clients.of("b") as other:
        assert first is second is not other
    assert opened.open == {"a": True, "b": True}


async def test_the_one_that_was_idle_longest_makes_room() -> None:
    opened = Opened()
    clients = CallerClients(opened, limit=2)
    for token in ("a", "b", "a", "c"):
        with clients.of(token):
            pass
    await asyncio.sleep(0)
    assert opened.open == {"a": True, "b": False, "c": True}
    assert len(clients) == 2


async def test_one_with_running_requests_is_never_closed() -> None:
    opened = Opened()
    clients = CallerClients(opened, limit=1)
    with clients.of("a"):
        with pytest.raises(LimitReachedError), clients.of("b"):
            pass
        assert opened.open == {"a": True}
    with clients.of("b"):
        pass


async def test_closing_closes_all() -> None:
    opened = Opened()
    clients = CallerClients(opened)
    for token in ("a", "b"):
        with clients.of(token):
            pass
    await clients.close()
    assert opened.open == {"a": False, "b": False}
