"""The scheduler is asked about a caller, and its answer holds for a while."""

from __future__ import annotations

from typing import cast

import pytest

from sage_client import AsyncClient, AuthenticationError
from sage_gateway.caller_clients import CallerClients
from sage_gateway.known_callers import KNOWN_S, LIMIT, KnownCallers


class Scheduler:
    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known = True
        self.time = 0.0

    def client_of(self, token: str) -> AsyncClient:
        scheduler = self

        class Client:
            async def models(self) -> tuple[()]:
                scheduler.asked.append(token)
                if not scheduler.known:
                    raise AuthenticationError("not known")
                return ()

            async def close(self) -> None: ...

        return cast(AsyncClient, Client())

    def callers(self) -> KnownCallers:
        return KnownCallers(CallerClients(self.client_of), now=lambda: self.time)


async def test_an_answer_holds_for_a_while() -> None:
    scheduler = Scheduler()
    callers = scheduler.callers()
    for token in ("a", "a", "b"):
        await callers.check(token)
    assert scheduler.asked == ["a", "b"]
    scheduler.time, scheduler.known = KNOWN_S, False
    with pytest.raises(AuthenticationError):
        await callers.check("a")


async def test_a_refusal_does_not_hold() -> None:
    scheduler = Scheduler()
    callers, scheduler.known = scheduler.callers(), False
    with pytest.raises(AuthenticationError):
        await callers.check("a")
    scheduler.known = True
    await callers.check("a")
    assert scheduler.asked == ["a", "a"]


async def test_callers_are_remembered_within_bounds() -> None:
    scheduler = Scheduler()
    callers = scheduler.callers()
    for number in range(LIMIT + 1):
        await callers.check(str(number))
    await callers.check(str(LIMIT))
    await callers.check("0")
    assert len(scheduler.asked) == LIMIT + 2
