"""Collects all invalid fields of a request before it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sage_client._errors import FieldViolation, InvalidRequestError


class FieldFaults:
    """The violations found so far: values that do not fit the contract.  The server checks the rest."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Record a violation of a field, named by its path in the contract."""
        self._found.append(FieldViolation(field=field, description=description))

    @contextmanager
    def at(self, field: str) -> Iterator[None]:
        """Record an error inside the block, such as a value of a wrong type, as a violation of ``field``."""
        try:
            yield
        except (ValueError, TypeError, OverflowError) as error:
            self.add(field, f"cannot be sent: {error}")

    def raise_any(self) -> None:
        """Raise InvalidRequestError if there are violations."""
        if self._found:
            raise InvalidRequestError.of(self._found)
