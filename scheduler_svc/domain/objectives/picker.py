"""Picks the best score; among equal scores the instance with the least load."""

from __future__ import annotations

from collections.abc import Sequence

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
    chosen = -1
    fewest = last = 0
    for i in [i for i, score in enumerate(scores) if score <= limit]:
        account = accounts[i]
        live = account.live
        if chosen < 0 or live < fewest or (live == fewest and account.last_chosen < last):
            chosen = i
            fewest = live
            last = account.last_chosen
    return chosen
