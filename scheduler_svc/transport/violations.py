"""The list of violations that conversion fills while it goes on."""

from __future__ import annotations

from scheduler_svc.domain.errors import FieldViolation


class Violations(list[FieldViolation]):
    """Fields at fault, in the order in which they were found."""

    def add(self, field: str, description: str) -> None:
        """Add a violation.  ``field``: path in the contract, such as ``spec.sampling.n``."""
        self.append(FieldViolation(field=field, description=description))
