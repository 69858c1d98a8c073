"""Which prefix blocks each instance's cache is believed to hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from scheduler_svc.domain.prefixes.held_tokens import HeldTokens
from scheduler_svc.domain.prefixes.holder_bits import HolderBits

#: Estimated memory, in bytes: of a block that is indexed, and of each instance that holds it.
BYTES_PER_BLOCK = 112
BYTES_PER_HOLDING = 64
#: Larger sets of holders that are kept ready; they start over at this number.
_KEPT_SETS = 256
#: Share of an instance's blocks that is evicted at a time: dropping many at once costs less for each.
_EVICTED_SHARE = 16


class _Holdings:
    """The blocks that one instance holds, longest unused first."""

    __slots__ = ("bit", "blocks", "capacity_tokens", "instance_id", "tokens")

    def __init__(self, instance_id: str, bit: int, capacity_tokens: int) -> None:
        self.instance_id = instance_id
        self.bit = bit
        self.capacity_tokens = capacity_tokens
        self.blocks: dict[int, int] = {}  # tokens by hash; below 0: what is in the cache and has no hash
        self.tokens = 0


class PrefixIndex:
    """Finds the instances that hold the leading blocks of a prompt.

    A block goes by the hash of the whole prefix that ends with it.  For each hash the index keeps the set of holders as
    the bits of one integer.  An engine evicts the end of a prefix before its beginning, so that the holders of a longer
    prefix are among those of a shorter one; a lookup gallops along the prompt from one change of that set to the next.

    An instance holds at most what fits its KV cache, and all of them at most ``max_bytes`` of this process's memory, as
    estimated; the blocks that are longest unused go first, of the instance with the most of them.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._instances: dict[str, _Holdings] = {}
        self._holders: dict[int, int] = {}  # bits of the instances that hold a block, by hash
        self._holdings = 0  # blocks, counted once for each holder
        self._bits = HolderBits()
        self._sets: dict[int, int] = {}  # equal sets of holders are one object

    @property
    def used_bytes(self) -> int:
        """Estimated memory of the index, in bytes."""
        return len(self._holders) * BYTES_PER_BLOCK + self._holdings * BYTES_PER_HOLDING

    def blocks_of(self, instance_id: str) -> int:
        """Count the blocks that an instance is believed to hold."""
        holdings = self._instances.get(instance_id)
        return sum(each >= 0 for each in holdings.blocks) if holdings is not None else 0

    # ------------------------------------------------------------------ instances

    def open(self, instance_id: str, *, capacity_tokens: int) -> None:
        """Start over with an engine that holds nothing.  ``capacity_tokens``: size of its KV cache."""
        self.forget(instance_id)
        self._bits = self._bits.with_one(instance_id)
        self._instances[instance_id] = _Holdings(instance_id, self._bits.bit(instance_id), capacity_tokens)

    def forget(self, instance_id: str) -> None:
        """Drop an instance and what it holds; nothing happens for an unknown one."""
        holdings = self._instances.pop(instance_id, None)
        if holdings is None:
            return
        self._drop(holdings, list(holdings.blocks))
        self._bits = self._bits.without(instance_id)

    def clear(self, instance_id: str) -> None:
        """Drop what an instance holds."""
        holdings = self._instances.get(instance_id)
        if holdings is not None:
            self._drop(holdings, list(holdings.blocks))

    # ------------------------------------------------------------------ blocks

    def hold(self, instance_id: str, hashes: Sequence[int], block_tokens: int) -> int:
        """Note that an instance holds blocks and used them now.

        ``hashes``: ascending along a prefix.  Returns how many leading blocks it held before.
        """
        holdings = self._instances.get(instance_id)
        if holdings is None:
            return 0
        blocks, before = holdings.blocks, 0
        take_out = blocks.pop
        for block in reversed(hashes):  # the first block is the last to be evicted
            if take_out(block, None) is None:
                self._add_holder(block, holdings.bit)
                holdings.tokens += block_tokens
                before = 0
            else:
                before += 1
            blocks[block] = block_tokens
        if before == len(hashes):
            return before
        if holdings.tokens > holdings.capacity_tokens:
            self._evict(holdings, holdings.tokens - holdings.capacity_tokens)
        if self.used_bytes > self.max_bytes:
            self._evict_to_bound()
        return before

    def fill(self, instance_id: str, number: int, tokens: int) -> None:
        """Note tokens in an instance's cache that no prompt can find, under a positive number of the caller's.

        They take capacity until they are evicted.
        """
        holdings = self._instances.get(instance_id)
        if holdings is None or tokens <= 0:
            return
        holdings.tokens += tokens - holdings.blocks.pop(-number, 0)
        holdings.blocks[-number] = tokens
        if holdings.tokens > holdings.capacity_tokens:
            self._evict(holdings, holdings.tokens - holdings.capacity_tokens)

    def drop(self, instance_id: str, hashes: Iterable[int]) -> None:
        """Note that an instance holds blocks no more; those it did not hold are ignored."""
        holdings = self._instances.get(instance_id)
        if holdings is not None:
            self._drop(holdings, [each for each in hashes if each in holdings.blocks])

    def bits_of(self, instances: Iterable[str]) -> int:
        """Return the bits that stand for these instances in a set of holders."""
        return self._bits.bits(instances)

    def cached_tokens(self, hashes: Sequence[int], block_tokens: int) -> HeldTokens:
        """Return how many leading tokens of a prompt each instance holds; those without any are left out."""
        holders_of, end = self._holders.get, len(hashes)
        steps: list[tuple[int, int]] = []
        at = 0
        held = holders_of(hashes[0], 0) if end else 0  # who holds every block up to ``at``
        while held:
            at = self._last_held_by_all(hashes, at, held) + 1
            steps.append((held, at * block_tokens))
            held = held & holders_of(hashes[at], 0) if at < end else 0
        return HeldTokens(self._bits, steps)

    def _last_held_by_all(self, hashes: Sequence[int], at: int, held: int) -> int:
        """Return the index of the last block that all of ``held`` hold, given that they hold the one at ``at``."""
        holders_of, step, end = self._holders.get, 1, len(hashes)
        while at + step < end and holders_of(hashes[at + step], 0) & held == held:
            at += step
            step *= 2
        end = min(end, at + step)
        while end - at > 1:
            middle = (at + end) // 2
            if holders_of(hashes[middle], 0) & held == held:
                at = middle
            else:
                end = middle
        return at

    def _add_holder(self, block: int, bit: int) -> None:
        held = self._holders.get(block, 0) | bit
        if len(self._sets) >= _KEPT_SETS:
            self._sets.clear()
        self._holders[block] = self._sets.setdefault(held, held)
        self._holdings += 1

    def _evict(self, holdings: _Holdings, tokens: int) -> None:
        """Drop at least ``tokens`` of an instance's longest unused blocks."""
        tokens = max(tokens, holdings.tokens // _EVICTED_SHARE)
        oldest = []
        for block, size in holdings.blocks.items():
            if tokens <= 0:
                break
            tokens -= size
            oldest.append(block)
        self._drop(holdings, oldest)

    def _evict_to_bound(self) -> None:
        while self.used_bytes > self.max_bytes and self._holdings:
            holdings = max(self._instances.values(), key=lambda each: len(each.blocks))
            count = max(1, len(holdings.blocks) // _EVICTED_SHARE)
            self._drop(holdings, list(islice(holdings.blocks, count)))

    def _drop(self, holdings: _Holdings, blocks: Iterable[int]) -> None:
        bit, holders = holdings.bit, self._holders
        for block in blocks:
            holdings.tokens -= holdings.blocks.pop(block)
            if block < 0:
                continue
            self._holdings -= 1
            left = holders[block] & ~bit
            if left:
                holders[block] = left
            else:
                del holders[block]
