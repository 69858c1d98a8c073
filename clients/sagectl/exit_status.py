"""What the exit status says."""

from __future__ import annotations

from enum import IntEnum

import sage_client as sage


class ExitStatus(IntEnum):
    """Documented in the README and in ``sagectl --help``; scripts may switch on these."""

    OK = 0
    INTERNAL = 1  # the server's fault, or something unforeseen
    INVALID = 2  # wrong usage, or a request at fault
    UNAVAILABLE = 3  # no scheduler, no instance, or shutting down
    NOT_FOUND = 4  # no such model, request or instance
    CONFLICT = 5  # the id is taken, or the state does not allow it
    QUEUE_FULL = 6  # or another of the scheduler's bounds is reached
    TIMED_OUT = 7  # the request's deadline, or this command's own bound
    CANCELLED = 8
    GENERATION_FAILED = 9
    NOT_ALLOWED = 10  # token missing, wrong or not enough
    NOT_SUPPORTED = 11
    INTERRUPTED = 130  # Ctrl-C


_BY_ERROR: tuple[tuple[type[sage.SageError], ExitStatus], ...] = (
    (sage.ConfigurationError, ExitStatus.INVALID),
    (sage.InvalidRequestError, ExitStatus.INVALID),
    (sage.NotFoundError, ExitStatus.NOT_FOUND),
    (sage.RequestConflictError, ExitStatus.CONFLICT),
    (sage.InvalidStateError, ExitStatus.CONFLICT),
    (sage.AuthenticationError, ExitStatus.NOT_ALLOWED),
    (sage.NotSupportedError, ExitStatus.NOT_SUPPORTED),
    (sage.QueueFullError, ExitStatus.QUEUE_FULL),
    (sage.LimitReachedError, ExitStatus.QUEUE_FULL),
    (sage.TryAgainError, ExitStatus.UNAVAILABLE),
    (sage.DeadlineExceededError, ExitStatus.TIMED_OUT),
    (sage.WaitTimeoutError, ExitStatus.TIMED_OUT),
    (sage.RequestCancelledError, ExitStatus.CANCELLED),
    (sage.RequestEndedError, ExitStatus.GENERATION_FAILED),
)
"""The first that fits counts; anything else is INTERNAL."""


def status_of(error: sage.SageError) -> ExitStatus:
    return next((status for kind, status in _BY_ERROR if isinstance(error, kind)), ExitStatus.INTERNAL)
