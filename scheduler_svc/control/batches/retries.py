"""What a line does after it failed: try again, for how long, or give up."""

from __future__ import annotations

from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    GenerationFailed,
    LimitReached,
    ModelChanged,
    NoInstance,
    NotLeader,
    Overloaded,
    PolicyFailed,
    QueueFull,
    Recovering,
    SchedulerError,
    ShuttingDown,
    TenantLimitReached,
    UnknownModel,
)

TRIES = 3
"""How often a line is tried whose attempts all failed, though not through its own fault."""

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""Seconds between two tries: twice as many after each."""

LONGEST_RECOVERING_S = 2.0
"""The same while the scheduler recovers: what executors held of lines waits ``grace.ADOPTED_S`` for them after that."""

_PASSES = (
    *(NoInstance, QueueFull, LimitReached, TenantLimitReached, Overloaded),
    *(Recovering, NotLeader, ShuttingDown),
    DeadlineExceeded,  # the line's is the batch's, which says so in the line's result
)
"""What passes by itself: a line waits for that until its batch expires."""

_MAY_PASS = (GenerationFailed, ModelChanged, PolicyFailed)


def tries_again(error: SchedulerError, tries: int, *, models_may_come: bool) -> bool:
    """Return whether a line is tried again.

    ``tries``: so far.  ``models_may_come``: the scheduler started just now, so its models are not all known yet.
    """
    if isinstance(error, _PASSES):
        return True
    if isinstance(error, UnknownModel):
        return models_may_come
    if isinstance(error, GenerationFailed) and error.request_is_at_fault:
        return False
    return isinstance(error, _MAY_PASS) and tries < TRIES


def wait_s(error: SchedulerError, tries: int) -> float:
    """Return seconds until the next try: at least what the error says."""
    longest_s = LONGEST_RECOVERING_S if isinstance(error, Recovering) else LONGEST_WAIT_S
    own_s = FIRST_WAIT_S * 2.0 ** min(tries - 1, 10)
    said_s = float(getattr(error, "expected_wait_s", 0.0))
    return min(longest_s, max(own_s, said_s))
