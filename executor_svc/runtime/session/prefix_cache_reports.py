"""Reports what the engine's prefix cache holds, named by hashes that the scheduler can compute from token ids."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import islice

from executor_svc.runtime.engine_port import BlocksRemoved, BlocksStored, CacheEvent, Engine
from executor_svc.runtime.messages.reports import PrefixCacheReport
from sage_common.prefix_hashes import PrefixHasher, prefix_block_tokens, token_bytes

HASHES_SENT = 8_192  # most hashes in one report; further reports follow
BLOCKS_KEPT_SHARE = 2  # times the blocks of the KV cache: if more are known, events of removals were lost


class _Block:
    """A KV block in the engine's prefix cache."""

    __slots__ = ("copies", "hasher", "tokens")

    def __init__(self, hasher: PrefixHasher, tokens: int) -> None:
        self.copies = 1  # an engine that computes one prompt twice at the same time has its blocks twice
        self.hasher = hasher  # of the prefix that ends with the block
        self.tokens = tokens  # of that prefix


class PrefixCacheReports:
    """Makes reports of the engine's prefix cache.

    The engine names blocks by hashes of its own and tells their token ids; here each prefix gets the hash that the
    scheduler gives it.  Between two reports changes are merged, so what waits to be sent is bounded by what the cache
    holds and held.
    """

    def __init__(self, model: str) -> None:
        """``model``: its name, as registered."""
        self._model = model
        self._engine: Engine | None = None
        self._block_tokens = 0
        self._most_blocks = 0
        self._blocks: dict[Hashable, _Block] = {}  # by the engine's hash
        self._number = 0  # of the latest report of the session
        self._reset = True
        self._stored: dict[int, None] = {}  # to be sent, oldest first
        self._removed: dict[int, None] = {}

    def watch(self, engine: Engine) -> None:
        """Read the events of ``engine`` from now on, if it tells."""
        facts = engine.facts
        if facts.reports_cache:
            self._engine = engine
            self._block_tokens = prefix_block_tokens(facts.kv_block_size)
            self._most_blocks = BLOCKS_KEPT_SHARE * (facts.kv_capacity_tokens // facts.kv_block_size + 1)

    def restart(self) -> None:
        """Begin a new session, whose scheduler knows nothing: everything is reported again."""
        self._number = 0
        self._report_all()

    def next(self) -> PrefixCacheReport | None:
        """Make the next report; None if there is nothing to tell.  Call it until it returns None."""
        if self._engine is None:
            return None
        for event in self._engine.take_cache_events():
            self._take(event)
        if len(self._blocks) > self._most_blocks:
            self._forget_all()
        if not (self._reset or self._removed or self._stored):
            return None
        removed = tuple(islice(self._removed, HASHES_SENT))
        stored = tuple(islice(self._stored, HASHES_SENT - len(removed)))
        for each in removed:
            del self._removed[each]
        for each in stored:
            del self._stored[each]
        self._number += 1
        reset, self._reset = self._reset, False
        return PrefixCacheReport(
            number=self._number, block_tokens=self._block_tokens, reset=reset, removed=removed, stored=stored
        )

    # --- events of the engine -----------------------------------------------------------------------------------

    def _take(self, event: CacheEvent) -> None:
        if isinstance(event, BlocksStored):
            self._store(event)
        elif isinstance(event, BlocksRemoved):
            for block in event.hashes:
                self._remove(block)
        else:
            self._forget_all()

    def _store(self, event: BlocksStored) -> None:
        before = self._before(event)
        size, odd = divmod(len(event.token_ids), max(1, len(event.hashes)))
        if before is None or odd or not size:
            return  # a part of a prefix whose beginning is not known is of no use
        tokens, at, hasher = token_bytes(event.token_ids), before.tokens, before.hasher
        for number, name in enumerate(event.hashes):
            at += size
            known = self._blocks.get(name)
            if known is not None:
                known.copies += 1
                hasher = known.hasher
                continue
            hasher = hasher.copy()
            hasher.extend(tokens[4 * size * number : 4 * size * (number + 1)])
            self._blocks[name] = _Block(hasher, at)
            if at % self._block_tokens == 0:
                self._removed.pop(hasher.value, None)
                self._stored[hasher.value] = None

    def _before(self, event: BlocksStored) -> _Block | None:
        if event.parent is None:
            return _Block(PrefixHasher(self._model, event.adapter), 0)
        return self._blocks.get(event.parent)

    def _remove(self, name: Hashable) -> None:
        block = self._blocks.get(name)
        if block is None:
            return
        block.copies -= 1
        if block.copies:
            return
        del self._blocks[name]
        if block.tokens % self._block_tokens == 0:
            self._stored.pop(block.hasher.value, None)
            self._removed[block.hasher.value] = None

    def _forget_all(self) -> None:
        self._blocks.clear()
        self._report_all()

    def _report_all(self) -> None:
        self._reset = True
        self._removed.clear()
        whole = (each for each in self._blocks.values() if each.tokens % max(1, self._block_tokens) == 0)
        self._stored = {each.hasher.value: None for each in whole}
