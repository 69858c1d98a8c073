"""How long a session waits for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionTimings:
    """Waits of the session with a scheduler, in seconds."""

    dial_timeout_s: float = 5.0  # to connect, register and be welcomed
    leave_timeout_s: float = 2.0  # for the scheduler to close after Goodbye
    beat_gap_s: float = 0.05  # heartbeats after changes come at least this far apart
    first_retry_s: float = 0.05
    most_retry_s: float = 5.0


DEFAULT_TIMINGS = SessionTimings()
