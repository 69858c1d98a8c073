"""Which callers the scheduler knows, for what the gateway answers by itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from sage_gateway.caller_clients import CallerClients

KNOWN_S = 30.0
"""Seconds that the scheduler's answer holds; a key that was taken back counts for as long here."""

LIMIT = 1_024
"""Callers that are remembered; beyond it, the one asked for longest ago is asked for again."""


class KnownCallers:
    """Asks the scheduler whether a caller may list models, which is what listing and tokenizing at the gateway need."""

    def __init__(self, clients: CallerClients, *, now: Callable[[], float] = time.monotonic) -> None:
        self._clients = clients
        self._now = now
        self._asked_at: OrderedDict[str, float] = OrderedDict()  # by token; those that may

    async def check(self, token: str) -> None:
        """Check that the caller with this token may list models.

        Raises AuthenticationError if it may not, and other SageErrors if the scheduler does not say.
        """
        asked_at = self._asked_at.get(token)
        if asked_at is not None and self._now() - asked_at < KNOWN_S:
            return
        self._asked_at.pop(token, None)
        with self._clients.of(token) as client:
            await client.models()
        self._asked_at[token] = self._now()
        self._asked_at.move_to_end(token)
        while len(self._asked_at) > LIMIT:
            self._asked_at.popitem(last=False)
