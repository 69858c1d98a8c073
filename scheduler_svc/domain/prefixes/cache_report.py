"""What an engine reports about its prefix cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheReport:
    """Changes of an engine's prefix cache, in this order: all is gone, blocks removed, blocks stored.

    Blocks go by the hash of the whole prefix that ends with them, as in ``Request.prefix_hashes``.
    """

    block_tokens: int  # tokens of a block
    cleared: bool = False  # everything that was stored before is gone
    removed: Sequence[int] = ()
    stored: Sequence[int] = ()  # of a prefix, the shorter first
