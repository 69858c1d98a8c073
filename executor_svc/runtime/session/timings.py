"""The time-outs and pauses of a session."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionTimings:
    """Waits of the session with a scheduler, in seconds."""

    dial_timeout_s: float = 5.0  # to connect, register and receive Welcome
    dial_next_s: float = 0.25  # for which an address is waited for before the next one is dialled beside it
    leave_timeout_s: float = 2.0  # for the scheduler to close after Goodbye
    heartbeat_gap_s: float = 0.05  # least time between two heartbeats
    first_retry_s: float = 0.05  # first pause before dialling again
    most_retry_s: float = 5.0  # longest pause before dialling again


DEFAULT_TIMINGS = SessionTimings()
