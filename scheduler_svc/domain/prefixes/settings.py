"""How far placement follows prefix caches, as an operator sets it."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixSettings:
    """Whether and how far placement follows prefix caches.  Raises ValueError with the offending key named."""

    aware: bool = True  # credit prompt tokens that an instance's cache is believed to hold
    max_index_bytes: int = 256 * 2**20  # of this process's memory, estimated; the oldest blocks go first
    max_load_ratio: float = 1.25  # an instance with more than this many times the mean load is not credited
    max_sessions: int = 65_536  # sessions whose last instance is remembered; the oldest go first

    def __post_init__(self) -> None:
        if self.max_index_bytes < 1:
            raise ValueError(f"max_index_bytes: {self.max_index_bytes} is not at least 1")
        if not (math.isfinite(self.max_load_ratio) and self.max_load_ratio >= 1):
            raise ValueError(f"max_load_ratio: {self.max_load_ratio} is not a number of at least 1")
        if self.max_sessions < 1:
            raise ValueError(f"max_sessions: {self.max_sessions} is not at least 1")
