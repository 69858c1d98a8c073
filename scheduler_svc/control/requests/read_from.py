"""Where readers of several choices go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scheduler_svc.domain.errors import FieldViolation


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadFrom:
    """Where a reader of several choices goes on with one of them."""

    choice: int
    after_token: int
    after_attempt: tuple[int, int] | None = None  # epoch and number of the attempt that made the last token it has


def outside(after: Sequence[ReadFrom], choices: int) -> Iterator[FieldViolation]:
    """Say which positions are of choices that a request does not have; one of them is enough."""
    for each in after:
        if each.choice >= choices:
            yield FieldViolation(field="after.choice", description=f"is {each.choice}; the request has {choices}")
            return
