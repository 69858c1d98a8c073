"""Checks of what executors say of themselves."""

from __future__ import annotations

from collections.abc import Sized

from sage_wire.errors import ErrorReason
from scheduler_svc.transport.clipping import size_of
from scheduler_svc.transport.errors import WireError

TEXT_BYTES = 1_024  # of a name, an address, a version


def bounded(field: str, text: str, limit: int = TEXT_BYTES) -> None:
    """Check the bytes of a text.  Raises WireError."""
    if size_of(text) > limit:
        raise refused(field, f"is longer than {limit} bytes")


def few(field: str, found: Sized, limit: int) -> None:
    """Check the number of entries.  Raises WireError."""
    if len(found) > limit:
        raise refused(field, f"has {len(found)} entries; the limit is {limit}")


def refused(field: str, why: str) -> WireError:
    """Return the error of a field that makes no sense."""
    return WireError(ErrorReason.INVALID_REGISTRATION, f"registration refused: {field}: {why}")
