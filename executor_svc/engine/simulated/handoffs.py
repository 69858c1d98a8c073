"""The prefill side of a transfer: prompts whose KV is kept for another engine.

Blocks stay pinned until they are fetched or released, or their lease ends.  The other engine reads them without this
engine's work.  It renews the lease while its request waits, and reports when it has read the blocks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from executor_svc.engine.simulated.kv import KvLease, KvPool
from sage_common.clock import Clock

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class KeptPrompt:
    """A prompt whose blocks are pinned."""

    blocks: KvLease
    tokens: int
    ends_at: float  # seconds on the engine's clock


class Handoffs:
    """The prompts kept for other engines.  Bounded by the KV pool: each prompt holds at least one block."""

    def __init__(self, *, kv: KvPool, clock: Clock, lease_s: float, on_freed: Callable[[], None]) -> None:
        self._kv = kv
        self._clock = clock
        self._lease_s = lease_s
        self._on_freed = on_freed
        self._kept: dict[str, KeptPrompt] = {}
        self._came = asyncio.Event()
        self.expired = 0

    def __contains__(self, handoff_id: str) -> bool:
        return handoff_id in self._kept

    def keep(self, handoff_id: str, blocks: KvLease, tokens: int) -> None:
        """Keep the blocks of a prompt for the length of a lease."""
        ends_at = self._clock.now() + self._lease_s
        self._kept[handoff_id] = KeptPrompt(blocks=blocks, tokens=tokens, ends_at=ends_at)
        self._came.set()

    def read(self, handoff_id: str) -> None:
        """Note that another engine reads the blocks.  After the lease it would read another prompt's KV."""
        if handoff_id not in self._kept:
            log.error("handoff %s was read, but its KV is not kept any more; its lease may have ended", handoff_id)

    def renew(self, handoff_id: str) -> None:
        """Extend a lease to at least two thirds of its length from now.  Ignored for an unknown handoff."""
        kept = self._kept.get(handoff_id)
        if kept is not None:
            kept.ends_at = max(kept.ends_at, self._clock.now() + self._lease_s * 2 / 3)

    def release(self, handoff_id: str) -> bool:
        """Free the blocks of a handoff.  Return False if it is not kept."""
        kept = self._kept.pop(handoff_id, None)
        if kept is None:
            return False
        self._kv.release(kept.blocks)
        self._on_freed()
        return True

    async def expire(self, running: asyncio.Event) -> None:
        """Free blocks whose lease has ended; runs until cancelled.

        Waits for ``running``: a hung engine frees nothing.
        """
        while True:
            if not self._kept:
                self._came.clear()
                await self._came.wait()
            first = min(kept.ends_at for kept in self._kept.values())
            if (wait_s := first - self._clock.now()) > 0:
                await self._clock.sleep(wait_s)
            await running.wait()
            self._free_expired()

    def _free_expired(self) -> None:
        now = self._clock.now()
        for handoff_id in [name for name, kept in self._kept.items() if kept.ends_at <= now]:
            self.expired += 1
            log.warning("the lease of handoff %s ended before its KV was fetched", handoff_id)
            self.release(handoff_id)
