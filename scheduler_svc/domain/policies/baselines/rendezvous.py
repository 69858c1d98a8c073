"""Rendezvous hashing: each key ranks the instances in an order of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from scheduler_svc.domain.capacity.account import Account

_MASK = (1 << 64) - 1


def ranks(key: int, accounts: Sequence[Account]) -> list[float]:
    """Return each instance's rank for a 64-bit key, in [0, 1); the lowest is the key's home.

    An instance that comes or goes changes the home of its own keys only.  Thaler and Ravishankar, "Using name-based
    mappings to increase hit rates", IEEE/ACM ToN 6(1), 1998.
    """
    return [_mixed(key ^ hash_of(a.instance_id)) / 2**64 for a in accounts]


@lru_cache(maxsize=8_192)
def hash_of(text: str) -> int:
    """Return a 64-bit hash that is the same in every process."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _mixed(value: int) -> int:
    """Mix the bits of a 64-bit number: the finalizer of SplitMix64 (Steele et al., OOPSLA 2014)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
