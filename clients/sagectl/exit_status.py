"""The exit statuses of ``sagectl``, and the status of each error."""

from __future__ import annotations

from enum import IntEnum

import sage_client as sage


class ExitStatus(IntEnum):
    """Exit statuses that scripts may rely on, as documented in the README and in ``sagectl --help``."""

    OK = 0
    INTERNAL = 1  # internal error, or a local fleet that failed
    INVALID = 2  # wrong usage, invalid request, or a package that is not installed
    UNAVAILABLE = 3  # scheduler unreachable or shutting down, or no instance available
    NOT_FOUND = 4  # unknown model, request or instance
    CONFLICT = 5  # request id already in use, or not allowed in the current state
    QUEUE_FULL = 6  # or another limit reached, of the scheduler or the tenant, or not enough capacity in time
    TIMED_OUT = 7  # the request's deadline, or this command's timeout
    CANCELLED = 8
    GENERATION_FAILED = 9
    NOT_ALLOWED = 10  # token missing, invalid or without permission
    NOT_SUPPORTED = 11
    TROUBLE = 12  # of doctor: a scheduler leads, and something is wrong
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
    (sage.TenantLimitError, ExitStatus.QUEUE_FULL),
    (sage.OverloadedError, ExitStatus.QUEUE_FULL),
    (sage.TryAgainError, ExitStatus.UNAVAILABLE),
    (sage.DeadlineExceededError, ExitStatus.TIMED_OUT),
    (sage.WaitTimeoutError, ExitStatus.TIMED_OUT),
    (sage.RequestCancelledError, ExitStatus.CANCELLED),
    (sage.RequestEndedError, ExitStatus.GENERATION_FAILED),
)
"""The first class that matches decides; any other error is INTERNAL."""


def status_of(error: sage.SageError) -> ExitStatus:
    """Return the exit status for an error of the SDK."""
    return next((status for kind, status in _BY_ERROR if isinstance(error, kind)), ExitStatus.INTERNAL)
