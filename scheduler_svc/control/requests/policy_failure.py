"""Says loudly that a policy's own code failed."""

from __future__ import annotations

import logging

from scheduler_svc.domain.errors import PolicyFailed
from scheduler_svc.domain.request import RequestKey

log = logging.getLogger(__name__)


def announce(error: PolicyFailed, key: RequestKey) -> None:
    """Log the error with the stack of its cause, and drop that, because it keeps the request's prompt alive."""
    log.error(
        "the policy %r failed for request %s, which ends; fifo is in force from now on",
        error.policy,
        key,
        exc_info=error.__cause__,
    )
    error.__cause__ = None
    error.__traceback__ = None
