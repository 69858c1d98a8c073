"""The KV cache of a modelled engine: finite blocks, shared prefixes, eviction of the least recently used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class KvCache:
    """Counts the KV blocks of one engine.

    A block is private to a sequence, or belongs to a prefix that goes by a hash and that several sequences may hold.
    A prefix that no sequence holds stays until its blocks are needed; the one longest unused goes first.
    """

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self.used_blocks = 0  # private ones and those of prefixes that a sequence holds
        self._blocks: dict[int, int] = {}  # of every prefix that is there, by hash
        self._holders: dict[int, int] = {}  # sequences, by hash of a prefix that is held
        self._idle: OrderedDict[int, None] = OrderedDict()  # prefixes that nobody holds, longest unused first
        self._idle_blocks = 0
        self._stored: dict[int, None] = {}  # prefixes that came since ``take_changes``, oldest first
        self._removed: dict[int, None] = {}  # those that went

    @property
    def free_blocks(self) -> int:
        """Blocks that can be taken, those of idle prefixes included."""
        return self.capacity_blocks - self.used_blocks

    @property
    def idle_blocks(self) -> int:
        """Blocks of prefixes that no sequence holds."""
        return self._idle_blocks

    def take_changes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the prefixes that came and those that went since the last call."""
        taken = tuple(self._stored), tuple(self._removed)
        self._stored.clear()
        self._removed.clear()
        return taken

    def cached_prefixes(self, hashes: Sequence[int]) -> int:
        """Count the leading hashes whose prefixes are there."""
        for count, each in enumerate(hashes):
            if each not in self._blocks:
                return count
        return len(hashes)

    def idle_among(self, hashes: Sequence[int]) -> int:
        """Count the blocks that stop being free when a sequence holds these prefixes."""
        return sum(self._blocks[each] for each in hashes if each in self._idle)

    def take(self, blocks: int) -> None:
        """Take private blocks, evicting idle prefixes where no block is empty.  At most ``free_blocks``."""
        assert blocks <= self.free_blocks, "the engine asks for no more blocks than are free"
        self.used_blocks += blocks
        while self.used_blocks + self._idle_blocks > self.capacity_blocks:
            evicted, _ = self._idle.popitem(last=False)
            self._stored.pop(evicted, None)
            self._removed[evicted] = None
            self._idle_blocks -= self._blocks.pop(evicted)

    def give_back(self, blocks: int) -> None:
        """Give private blocks back."""
        self.used_blocks -= blocks

    def hold(self, hashes: Sequence[int]) -> None:
        """Hold prefixes that are there."""
        for each in hashes:
            if each in self._idle:
                del self._idle[each]
                self._idle_blocks -= self._blocks[each]
                self.used_blocks += self._blocks[each]
            self._holders[each] = self._holders.get(each, 0) + 1

    def publish(self, prefix: int, blocks: int) -> bool:
        """Make private blocks those of a prefix, held by their sequence.

        False if the prefix is there already, or has no block: the blocks stay private.
        """
        if prefix in self._blocks or not blocks:
            return False
        self._blocks[prefix] = blocks
        self._holders[prefix] = 1
        self._removed.pop(prefix, None)
        self._stored[prefix] = None
        return True

    def let_go(self, hashes: Sequence[int]) -> None:
        """Stop holding prefixes.  The longer ones are evicted first, as they are of no use without the shorter."""
        for each in reversed(hashes):
            self._holders[each] -= 1
            if not self._holders[each]:
                del self._holders[each]
                self._idle[each] = None
                self._idle_blocks += self._blocks[each]
                self.used_blocks -= self._blocks[each]
