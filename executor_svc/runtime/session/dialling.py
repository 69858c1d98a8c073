"""The addresses that are being dialled at the same time, of which the first that gives a session counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from executor_svc.runtime.link import Link
from executor_svc.runtime.messages.registration import Welcome


@dataclass(frozen=True, slots=True)
class Connection:
    """A session that an address gave."""

    address: str
    link: Link
    welcome: Welcome


class Dialling:
    """Tries that run at the same time, one for each address at most."""

    def __init__(self) -> None:
        self._tries: dict[str, asyncio.Future[Connection | None]] = {}

    def __contains__(self, address: str) -> bool:
        return address in self._tries

    def start(self, address: str, work: Awaitable[Connection | None]) -> None:
        """Dial an address that is not being dialled; ``work`` returns None if it gives no session."""
        self._tries[address] = asyncio.ensure_future(work)

    async def first(self, limit_s: float, *, of: str | None = None) -> Connection | None:
        """Return the first session that any address gives within ``limit_s`` seconds, and close any other.

        Returns None earlier when the try ``of`` this address has ended without one.  Raises what a try raises.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        while True:
            if (found := await self._ended()) is not None:
                return found
            left_s = end - loop.time()
            if left_s <= 0 or (of is not None and of not in self._tries):
                return None
            if not self._tries:
                await asyncio.sleep(left_s)
            else:
                await asyncio.wait(self._tries.values(), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    async def _ended(self) -> Connection | None:
        """Forget the tries that have ended; return the session of one, and close those of others."""
        found: Connection | None = None
        for address, each in list(self._tries.items()):
            if not each.done():
                continue
            del self._tries[address]
            connection = each.result()
            if found is None:
                found = connection
            elif connection is not None:
                await connection.link.close()
        return found

    async def give_up(self) -> None:
        """End all tries, and close what they gave."""
        running = list(self._tries.values())
        self._tries.clear()
        for each in running:
            each.cancel()
        for result in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(result, Connection):
                await result.link.close()
