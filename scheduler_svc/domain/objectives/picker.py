"""Picks the best score; among equal scores the instance with the least load."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from scheduler_svc.domain.capacity.account import Account

#: Predicted times closer than this count as equal: the difference is noise of the measurement.
TIME_TOLERANCE_S = 2e-3
RELATIVE_TOLERANCE = 0.05


def pick(
    accounts: Sequence[Account],
    scores: Sequence[float],
    *,
    tolerance: float = TIME_TOLERANCE_S,
    relative: float = RELATIVE_TOLERANCE,
) -> int:
    """Return the index of the lowest score.

    Among scores within the tolerance: the instance with the fewest live reservations, then the least recently chosen,
    then the lowest id.  ``accounts`` is not empty and sorted by id.
    """
    best = min(scores)
    limit = best + best * relative + tolerance
    turns = [a.turn if score <= limit else inf for a, score in zip(accounts, scores, strict=True)]
    return turns.index(min(turns))
