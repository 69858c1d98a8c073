"""Hashes of prompts' beginnings, by which scheduler and executors name what a prefix cache holds.

The hash of a prefix is that of its model, its adapter and its token ids, and of nothing else: two engines whose KV
blocks have different sizes give the same prefix the same hash.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import lcm

LEAST_BLOCK_TOKENS = 64
"""Prefixes are hashed at multiples of at least this many tokens: shorter ones save too little to be worth a hash."""

MOST_BLOCK_TOKENS = 4_096
"""Longest block that prompts are hashed in to suit engines of different block sizes."""

MOST_BLOCKS = 4_096
"""Most hashes made of one prompt; what follows them counts as cached nowhere."""

_HASH_BYTES = 8
_TOKENS = "I" if array("I").itemsize == 4 else "L"


def prefix_block_tokens(kv_block_size: int) -> int:
    """Return at multiples of how many tokens an engine's prefixes are hashed: whole KV blocks of it."""
    return -(-LEAST_BLOCK_TOKENS // kv_block_size) * kv_block_size


def common_block_tokens(kv_block_sizes: Iterable[int]) -> int:
    """Return at multiples of how many tokens prompts are hashed, so that engines of these block sizes all match them.

    Where that is more than MOST_BLOCK_TOKENS, those of the longest blocks do.  There is at least one size.
    """
    each = {prefix_block_tokens(size) for size in kv_block_sizes}
    common = lcm(*each)
    return common if common <= MOST_BLOCK_TOKENS else max(each)


def token_bytes(token_ids: Sequence[int]) -> bytes:
    """Return token ids as bytes, four for each, the least significant first."""
    tokens = array(_TOKENS, token_ids)
    if sys.byteorder == "big":
        tokens.byteswap()
    return tokens.tobytes()


class PrefixHasher:
    """The hash of a prefix that grows."""

    __slots__ = ("_hash",)

    def __init__(self, model: str, adapter: str) -> None:
        """Begin with no tokens.  ``adapter``: name of a LoRA adapter; empty for none."""
        names = f"{len(model)}:{model}{adapter}".encode()
        self._hash = blake2b(blake2b(names, digest_size=16).digest(), digest_size=_HASH_BYTES)

    def copy(self) -> PrefixHasher:
        """Return a hasher of the same prefix that grows apart from this one."""
        found = object.__new__(PrefixHasher)
        found._hash = self._hash.copy()
        return found

    def extend(self, tokens: bytes) -> None:
        """Add tokens to the prefix, as ``token_bytes`` makes them."""
        self._hash.update(tokens)

    @property
    def value(self) -> int:
        """The hash of the prefix so far, 64 bits."""
        return int.from_bytes(self._hash.digest(), "little")


def prefix_hashes(token_ids: Sequence[int], block_tokens: int, *, model: str, adapter: str = "") -> tuple[int, ...]:
    """Return the hash of each whole block of a prompt over its whole prefix, at most MOST_BLOCKS of them."""
    blocks = min(len(token_ids) // block_tokens, MOST_BLOCKS)
    if not blocks:
        return ()
    prompt = memoryview(token_bytes(token_ids[: blocks * block_tokens]))
    step = 4 * block_tokens
    hasher = PrefixHasher(model, adapter)
    update, digest = hasher._hash.update, hasher._hash.digest
    found = []
    for at in range(0, blocks * step, step):
        update(prompt[at : at + step])
        found.append(digest())
    return tuple(int.from_bytes(each, "little") for each in found)
