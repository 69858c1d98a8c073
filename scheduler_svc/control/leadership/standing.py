"""What a scheduler does, as it tells who asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class SchedulerState(Enum):
    """What a scheduler does."""

    STANDBY = "standby"  # another one leads, or none can
    RECOVERING = "recovering"  # it leads, and waits for the instances that were there
    LEADING = "leading"
    LEAVING = "leaving"  # it stops


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A scheduler's state at one moment."""

    state: SchedulerState
    epoch: int = 0  # of the leader; 0: none is known
    leader: str = ""  # its addresses, separated by commas; empty: not known
    lease_s: float | None = None  # of the leader; None: there is one scheduler only
    lease_left_s: float = 0.0  # of it, as this scheduler knows
    troubles: tuple[str, ...] = ()  # what is wrong, a sentence each
