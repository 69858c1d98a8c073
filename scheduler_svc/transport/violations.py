"""The list of violations that conversion fills while it goes on."""

from __future__ import annotations

from scheduler_svc.domain.errors import FieldViolation

SHOWN_LIMIT = 100
"""Violations kept of one request; a caller mends the first ones first."""


class Violations(list[FieldViolation]):
    """Fields at fault, in the order in which they were found."""

    def add(self, field: str, description: str) -> None:
        """Add a violation unless SHOWN_LIMIT are kept.  ``field``: its path, such as ``spec.sampling.n``."""
        if len(self) < SHOWN_LIMIT:
            self.append(FieldViolation(field=field, description=description))
