"""Prefill/decode separation as operators see and set it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class SplitMode(Enum):
    """When requests are split into a prefill and a decode leg."""

    NEVER = "never"
    ALWAYS = "always"  # all that can be
    THRESHOLD = "threshold"  # by token counts
    ADAPTIVE = "adaptive"  # where predicted times say that it pays
    UNKNOWN = "unknown"


class PairState(Enum):
    """Where a pair of instances stands."""

    UNTRIED = "untried"
    WARMING = "warming"
    USABLE = "usable"
    FAILED = "failed"  # tried again later
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDecodeConfig:
    mode: SplitMode
    threshold_input_tokens: int  # THRESHOLD splits prompts of at least this many tokens ...
    threshold_ratio: float  # ... or this many times the predicted output


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDecodePair:
    """Two instances, the first of which may hand KV over to the second."""

    prefill_instance_id: str
    decode_instance_id: str
    model: str
    state: PairState
    reason: str  # why it failed
    handoff_s: float | None  # of late: prefill's end to decode's first token


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDecodeStatus:
    config: PrefillDecodeConfig
    pairs: tuple[PrefillDecodePair, ...]  # at most 1,024, in a fleet's snapshot 64: those in trouble first
    pairs_by_state: Mapping[str, int]  # all there are, by the values of PairState; empty states are left out
    conditions: tuple[str, ...]  # what keeps it from working, in words; empty when all is well
    splits: int  # requests split since the scheduler's start
    fallbacks: int  # of requests that should have been split and ran whole, or whose handoff failed
