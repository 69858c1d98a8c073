"""The identity of the call that the running task answers.  gRPC answers each call in a task of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

from scheduler_svc.access.identity import Identity

_caller: ContextVar[Identity] = ContextVar("sage-caller")
_judge: ContextVar[Callable[[], Identity]] = ContextVar("sage-caller-judge")


def caller() -> Identity:
    """Return who made the call that this task answers.

    Raises:
        LookupError: no call is being answered, or nobody checked who made it; so that a handler that nothing guards
            fails instead of answering.
    """
    return _caller.get()


def set_caller(identity: Identity, judge: Callable[[], Identity] | None = None) -> None:
    """Make ``identity`` the caller for the rest of this task.

    ``judge`` finds out again who calls and whether that may be; it raises Denied.  None: the answer stays the same.
    """
    _caller.set(identity)
    _judge.set(judge or (lambda: identity))


def renew_caller() -> None:
    """Find out again who calls, for the rest of this task: keys are taken back, and tokens expire.  Raises Denied."""
    _caller.set(_judge.get()())
