"""The identity of the call that the running task answers.  gRPC answers each call in a task of its own."""

from __future__ import annotations

from contextvars import ContextVar

from scheduler_svc.access.identity import Identity

_caller: ContextVar[Identity] = ContextVar("sage-caller")


def caller() -> Identity:
    """Return who made the call that this task answers.

    Raises:
        LookupError: no call is being answered, or nobody checked who made it; so that a handler that nothing guards
            fails instead of answering.
    """
    return _caller.get()


def set_caller(identity: Identity) -> None:
    """Make ``identity`` the caller for the rest of this task."""
    _caller.set(identity)
