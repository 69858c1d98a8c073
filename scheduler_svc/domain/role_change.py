"""A change of an instance's role that the scheduler decides by itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from scheduler_svc.domain.instance_spec import InstanceRole


class Cause(Enum):
    """Why a role changes; changes are counted by this."""

    PREFILL_PRESSED = "prefill_pressed"
    DECODE_PRESSED = "decode_pressed"
    PREFILL_EMPTY = "prefill_empty"  # no prefill instance is READY or starts
    DECODE_EMPTY = "decode_empty"
    PREFILL_UNABLE = "prefill_unable"  # no other instance of the prefill side serves all that a former one serves
    DECODE_UNABLE = "decode_unable"
    SPLITTING_OFF = "splitting_off"  # changed instances go back to the roles of their executors
    UNKNOWN = "unknown"  # a scheduler of another version changed it, for a reason that this one does not know


@dataclass(frozen=True, kw_only=True, slots=True)
class RoleChange:
    """One instance's change, with everything needed to explain it."""

    model: str
    instance_id: str
    before: InstanceRole
    role: InstanceRole
    cause: Cause
    reason: str  # in words
    at: float  # seconds on the scheduler's clock
