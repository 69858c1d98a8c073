"""Rounds KV tokens up to whole blocks, in which engines hand out their KV cache."""

from __future__ import annotations


def whole_blocks(tokens: int, block: int) -> int:
    """Round ``tokens`` up to whole KV blocks of ``block`` tokens."""
    return -(-tokens // block) * block
