"""What changes in an engine's prefix cache."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksStored:
    """Consecutive KV blocks of one prefix that are in the prefix cache now; the engine names them by its own hashes."""

    hashes: Sequence[Hashable]
    parent: Hashable | None  # the block before the first one; None at the beginning of a prompt
    token_ids: Sequence[int]  # of all these blocks
    adapter: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksRemoved:
    """KV blocks that are in the prefix cache no more."""

    hashes: Sequence[Hashable]


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheCleared:
    """Nothing that was told of the prefix cache before counts any more: it was emptied, or events were lost."""


CacheEvent = BlocksStored | BlocksRemoved | CacheCleared
