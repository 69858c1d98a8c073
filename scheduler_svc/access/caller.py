"""The identity of the call that the running task answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def calling(identity: Identity) -> Iterator[None]:
    """Make ``identity`` the caller for as long as the context lasts."""
    token = _caller.set(identity)
    try:
        yield
    finally:
        with suppress(ValueError):  # a generator that is collected is closed in another context, which ends as well
            _caller.reset(token)
