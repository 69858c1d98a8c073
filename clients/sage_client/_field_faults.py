"""Collects what is wrong with a request before it is sent, so that every field is named at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sage_client._errors import FieldViolation, InvalidRequestError


class FieldFaults:
    """Violations found so far.  The server checks values; this only finds what the contract cannot carry."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        self._found.append(FieldViolation(field=field, description=description))

    @contextmanager
    def at(self, field: str) -> Iterator[None]:
        """What does not fit into the field's type inside the block becomes a violation of ``field``."""
        try:
            yield
        except (ValueError, TypeError, OverflowError) as error:
            self.add(field, f"cannot be sent: {error}")

    def raise_any(self) -> None:
        """Raises InvalidRequestError if anything was found."""
        if self._found:
            raise InvalidRequestError.of(self._found)
