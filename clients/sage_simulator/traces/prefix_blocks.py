"""Hashes of a growing prompt's KV blocks, made from the identities of the texts that it is composed of."""

from __future__ import annotations

import hashlib

_MASK = (1 << 64) - 1


def content_id(name: str) -> int:
    """Return the identity of a text known by name, the same in every process: 64 bits."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def mixed(state: int, value: int) -> int:
    """Return a 64-bit hash of a hash and a value: one round of SplitMix64 (Steele et al., OOPSLA 2014)."""
    word = (state ^ (value + 0x9E3779B97F4A7C15 + (state << 6 & _MASK) + (state >> 2))) & _MASK
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _MASK
    return word ^ word >> 31


class PrefixBlocks:
    """The blocks of one prompt, which texts are appended to.

    Two prompts have the same hash at a place if and only if they are composed of the same texts up to the end of that
    block.  A block is counted once it is full: engines share full blocks only.
    """

    __slots__ = ("_block_tokens", "_hash", "_in_block", "hashes", "tokens")

    def __init__(self, block_tokens: int) -> None:
        if block_tokens < 1:
            raise ValueError(f"block_tokens must be at least 1, got {block_tokens}")
        self._block_tokens = block_tokens
        self._hash = mixed(0, block_tokens)  # over everything appended so far
        self._in_block = 0  # tokens of the block that is not full yet
        self.tokens = 0
        self.hashes: list[int] = []  # of the full blocks

    def append(self, content: int, tokens: int) -> None:
        """Append a text: what it is, and its length in tokens."""
        start = 0
        while start < tokens:
            part = min(self._block_tokens - self._in_block, tokens - start)
            # The part's place in its text counts: blocks may cut the same text at different places.
            self._hash = mixed(mixed(mixed(self._hash, content), start), part)
            self._in_block += part
            start += part
            if self._in_block == self._block_tokens:
                self.hashes.append(self._hash)
                self._in_block = 0
        self.tokens += tokens
