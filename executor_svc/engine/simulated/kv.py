"""A finite KV cache in blocks, with a prefix cache over full prompt blocks.

Blocks are counted, not numbered: nothing is stored in them.  A block is private to one sequence, or shared
under the key of the prompt prefix it holds.  A shared block that no sequence holds stays in the cache until
its space is needed (least recently released first) and counts as free, as in vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from executor_svc.engine.cache_events import CacheEvents
from executor_svc.runtime.engine_port import BlocksRemoved, CacheCleared


@dataclass(slots=True)
class KvLease:
    """The blocks one sequence holds."""

    shared: list[int] = field(default_factory=list)  # keys
    private: int = 0  # blocks

    @property
    def blocks(self) -> int:
        """Number of blocks held."""
        return len(self.shared) + self.private


def block_keys(tokens: Sequence[int], block_size: int, salt: int) -> list[int]:
    """Return one key per full block of ``tokens``; equal keys mean an equal prefix up to the block's end."""
    keys = []
    key = salt
    for start in range(0, len(tokens) - block_size + 1, block_size):
        key = hash((key, tuple(tokens[start : start + block_size])))
        keys.append(key)
    return keys


class KvPool:
    """All blocks of one engine.  ``used`` never exceeds ``total``."""

    def __init__(self, *, capacity_tokens: int, block_size: int) -> None:
        self.block_size = block_size
        self.total = capacity_tokens // block_size  # blocks
        self._private = 0
        self._holders: dict[int, int] = {}  # key -> leases that hold it
        self._idle: dict[int, None] = {}  # keys that no lease holds, least recently released first
        self.events = CacheEvents()

    @property
    def used(self) -> int:
        """Number of blocks that at least one lease holds."""
        return self._private + len(self._holders)

    @property
    def used_tokens(self) -> int:
        """Number of tokens that the held blocks can store."""
        return self.used * self.block_size

    def cached_prefix(self, keys: Sequence[int]) -> int:
        """Count the leading keys that are in the cache."""
        for index, key in enumerate(keys):
            if key not in self._holders and key not in self._idle:
                return index
        return len(keys)

    def take(self, lease: KvLease, *, fresh: int, cached: Sequence[int] = ()) -> bool:
        """Add ``cached`` keys and ``fresh`` private blocks to the lease.

        Return False, and add nothing, if not all of them are available.
        """
        woken = sum(1 for key in cached if key not in self._holders)
        if self.used + woken + fresh > self.total:
            return False
        for key in cached:
            self._idle.pop(key, None)
            self._holders[key] = self._holders.get(key, 0) + 1
        lease.shared.extend(cached)
        lease.private += fresh
        self._private += fresh
        while self.used + len(self._idle) > self.total:
            evicted = next(iter(self._idle))
            del self._idle[evicted]
            self.events.add(BlocksRemoved(hashes=(evicted,)))
        return True

    def publish(self, lease: KvLease, key: int) -> bool:
        """Put one of the lease's private blocks into the prefix cache under ``key``.

        Return False if the key is in the cache already; the block stays private.
        """
        if key in self._holders or key in self._idle:
            return False
        lease.private -= 1
        self._private -= 1
        lease.shared.append(key)
        self._holders[key] = 1
        return True

    def drop_cached(self) -> None:
        """Empty the prefix cache but for blocks that a sequence holds."""
        self._idle.clear()
        self.events.add(CacheCleared())

    def release(self, lease: KvLease) -> None:
        """Free all blocks of the lease.  The end of a prefix is evicted before its beginning."""
        for key in reversed(lease.shared):
            self._holders[key] -= 1
            if not self._holders[key]:
                del self._holders[key]
                self._idle[key] = None
        self._private -= lease.private
        lease.shared.clear()
        lease.private = 0
