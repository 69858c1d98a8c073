"""The calls that are being answered, so that those of a revoked key end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from scheduler_svc.access.authenticator import Authenticator
from scheduler_svc.access.identity import Identity, Unauthenticated

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Call:
    """A call that is being answered."""

    identity: Identity
    task: asyncio.Task[Any]  # answers it
    revoked: bool = False


class OpenCalls:
    """Every call that a key or a token's signature proved.  Belongs to one event loop."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._calls: set[_Call] = set()

    def __len__(self) -> int:
        """Return the number of calls."""
        return len(self._calls)

    @contextmanager
    def answering(self, identity: Identity) -> Iterator[None]:
        """Keep the call that the running task answers for ``identity`` while the body runs.

        Raises:
            Unauthenticated: its key was revoked meanwhile.
        """
        task = asyncio.current_task()
        if identity.proof is None or task is None:
            yield
            return
        call = _Call(identity, task)
        self._calls.add(call)
        try:
            yield
        except asyncio.CancelledError:
            if not call.revoked or task.uncancel():  # the client left too
                raise
            raise Unauthenticated(f"the key of {identity.name} was revoked") from None
        finally:
            self._calls.discard(call)

    def end_revoked(self) -> None:
        """End the calls whose proof does not stand any more."""
        ended: dict[str, int] = {}
        for call in self._calls:
            if not call.revoked and not self._authenticator.stands(call.identity):
                call.revoked = True
                call.task.cancel()
                ended[call.identity.name] = ended.get(call.identity.name, 0) + 1
        for name, count in ended.items():
            log.warning("the key of %s was revoked or changed: %d open calls end", name, count)
