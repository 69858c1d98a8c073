"""Picks the best score; among equal scores the instance with the least load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from scheduler_svc.domain.capacity.account import Account

#: Predicted times closer than this count as equal: the difference is noise of the measurement.
TIME_TOLERANCE_S = 2e-3
RELATIVE_TOLERANCE = 0.05

_NOTHING: Mapping[str, int] = {}


def pick(
    accounts: Sequence[Account],
    scores: Sequence[float],
    *,
    tolerance: float = TIME_TOLERANCE_S,
    relative: float = RELATIVE_TOLERANCE,
    cached: Mapping[str, int] = _NOTHING,
) -> int:
    """Return the index of the lowest score.

    Among scores within the tolerance: the instance that holds the most of the prompt in its prefix cache, then the one
    with the fewest live reservations, then the least recently chosen, then the lowest id.

    ``accounts`` is not empty and sorted by id.  ``cached``: prompt tokens that caches hold, by instance id.
    """
    best = min(scores)
    limit = best + best * relative + tolerance
    if cached:
        held = [(cached.get(a.instance_id, 0), -a.turn, -i) for i, a in enumerate(accounts) if scores[i] <= limit]
        return -max(held)[2]
    turns = [a.turn if score <= limit else inf for a, score in zip(accounts, scores, strict=True)]
    return turns.index(min(turns))
