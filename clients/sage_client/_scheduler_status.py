"""What a scheduler says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from sage_client._plain import Plain


class SchedulerState(Enum):
    """What a scheduler does."""

    UNKNOWN = "unknown"  # a state of a later version
    STANDBY = "standby"  # another scheduler leads, or none can
    RECOVERING = "recovering"  # it leads, and waits for the instances that were there
    LEADING = "leading"
    LEAVING = "leaving"  # it stops


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerStatus(Plain):
    """One scheduler, which may lead or stand by."""

    state: SchedulerState
    epoch: int  # of the leader, as this scheduler knows it; 0: it knows of none
    leader: str  # addresses of the leader, separated by commas; empty: it knows of none, or leads itself
    software_version: str
    clock: datetime  # what its clock showed when it answered, in UTC
    leader_lease_s: float | None  # length of the leader's lease; None: there is one scheduler only
    lease_left_s: float  # of the leader's lease, as this scheduler knows
    troubles: tuple[str, ...]  # what is wrong, one sentence each

    @property
    def leads(self) -> bool:
        """Whether requests can be sent to it."""
        return self.state in (SchedulerState.LEADING, SchedulerState.RECOVERING)
