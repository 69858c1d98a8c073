"""Values that describe prefill/decode separation: settings, pairs, conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sage_client._enums import InstanceRole
from sage_client._plain import Plain


class SplitMode(Enum):
    """The rule that decides when requests are split into a prefill and a decode leg."""

    NEVER = "never"
    ALWAYS = "always"  # every request that can be split
    THRESHOLD = "threshold"  # by token counts
    ADAPTIVE = "adaptive"  # where splitting is predicted to be faster
    UNKNOWN = "unknown"


class PairState(Enum):
    """State of a pair of instances."""

    UNTRIED = "untried"
    WARMING = "warming"
    USABLE = "usable"
    FAILED = "failed"  # its warm-up or handoffs failed; retried later
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDecodeConfig(Plain):
    """The settings that decide when requests are split."""

    mode: SplitMode
    threshold_input_tokens: int  # THRESHOLD splits prompts of at least this many tokens ...
    threshold_ratio: float  # ... or this many times the predicted output
    not_kept: str = ""  # after a change: why it is not in the journal yet, in words; empty if it is, or without one


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDecodePair:
    """A prefill instance and a decode instance that fetches KV from it."""

    prefill_instance_id: str
    decode_instance_id: str
    model: str
    state: PairState
    reason: str  # why the pair failed; else empty
    handoff_s: float | None  # recent seconds from the end of prefill to the first token of decode


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDecodeSide:
    """The instances of a model that take one leg of split requests, and how much they have to do."""

    model: str
    role: InstanceRole  # PREFILLING or DECODING
    ready: int  # instances
    starting: int  # instances
    pressure: float  # 1 is what those that are ready can just carry
    reason: str  # what the pressure comes from, in words


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleChange:
    """A change of an instance's role that the scheduler decided by itself."""

    instance_id: str
    model: str
    previous: InstanceRole
    role: InstanceRole
    # "prefill_pressed", "decode_pressed", "prefill_empty", "decode_empty", "prefill_unable", "decode_unable",
    # "splitting_off" or "unknown"
    cause: str
    reason: str  # in words
    age_s: float  # seconds since the change


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefillDecodeStatus(Plain):
    """The settings, pairs and conditions of prefill/decode separation."""

    config: PrefillDecodeConfig
    pairs: tuple[PrefillDecodePair, ...]  # at most 1,024, in a fleet snapshot 64; those that are not usable first
    pairs_by_state: Mapping[str, int]  # numbers of all pairs, by the values of PairState; empty states are left out
    conditions: tuple[str, ...]  # what prevents splitting, in words; empty if nothing does
    splits: int  # requests split since the scheduler's start
    fallbacks: int  # requests that should have been split and ran whole, or whose handoff failed
    automatic_roles: bool = False  # the scheduler changes roles between prefill and decode by itself
    sides: tuple[PrefillDecodeSide, ...] = ()  # prefill, then decode, of each model; empty unless automatic_roles
    role_changes: tuple[RoleChange, ...] = ()  # the latest, at most 16, newest first
