"""What schedulers that share a database leave for the next one that leads."""

from __future__ import annotations

import asyncio
import logging

from scheduler_svc.control.leadership.leader_store import StoreFailed, Won
from scheduler_svc.storage.instances_record import EarlierInstances, encode
from scheduler_svc.storage.leadership import PostgresLeadership

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Pause before instances are written again that could not be."""

CLOSE_S = 1.0
"""How long ``close`` waits for what is being written."""


class SharedState:
    """Implements ``State`` for one term.  What a later leader wrote is never overwritten."""

    def __init__(self, store: PostgresLeadership, won: Won) -> None:
        self.secret = won.secret
        self.instances = won.instances
        self.epoch = won.epoch
        self._store = store
        self._written = self._wanted = won.instances
        self._writing: asyncio.Task[None] | None = None
        self._frozen = False

    def keep_instances(self, instances: EarlierInstances) -> None:
        """Write down, in a task, which instances have a session: the next leader waits for them."""
        if self._frozen:
            return
        self._wanted = instances
        if self._wanted != self._written and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="shared state")

    def freeze(self) -> None:
        """Write down nothing that comes later: the sessions that end from here on are the next leader's."""
        self._frozen = True

    async def close(self) -> None:
        """Finish writing, within CLOSE_S."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=CLOSE_S)
            self._writing.cancel()

    async def _write(self) -> None:
        told = False
        while self._wanted != self._written:
            wanted = self._wanted
            try:
                await self._store.keep_instances(self.epoch, encode(wanted, self.epoch))
            except StoreFailed as failure:
                if self._frozen:
                    return
                if not told:
                    log.error("instances cannot be written: %s; the next leader may wait for others", failure)
                told = True
                await asyncio.sleep(RETRY_S)
            else:
                self._written = wanted
