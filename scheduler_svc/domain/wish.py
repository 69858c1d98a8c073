"""What a governing policy would rather follow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    policy: str  # to follow now
    reason: str  # in words, with the figures
