"""The settings of sessions, leases and cool-downs."""

from __future__ import annotations

from dataclasses import dataclass

PROBATION_MAX_S = 60.0
"""The longest cool-down by default, in seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSettings:
    """Times and limits of sessions, in seconds and counts."""

    lease_s: float = 5.0  # silence after which an instance is lost
    heartbeat_interval_s: float = 0.5
    reconnect_grace_s: float = 0.3  # from a broken stream to the loss of the instance
    leader_lease_s: float | None = None  # how long this scheduler leads without renewing it; None: it is the only one
    adopt_s: float = 60.0  # how long attempts go on without a session, for the next scheduler
    forget_after_s: float = 600.0  # how long a lost instance is listed
    failures_to_suspect: int = 3  # in a row, until the instance cools down
    probation_s: float = 5.0  # the first cool-down; each further one takes twice as long, up to probation_max_s
    probation_max_s: float = PROBATION_MAX_S

    @property
    def silence_s(self) -> float:
        """How long executors stay with a scheduler that acknowledges no heartbeat."""
        return self.lease_s if self.leader_lease_s is None else min(self.lease_s, self.leader_lease_s)
