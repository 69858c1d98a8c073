"""Picks the best score; among equal scores the instance with the least load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.cached_tokens import NOTHING_CACHED, cached_column
from scheduler_svc.domain.capacity.figures import Column, Figures, Mask, Rows, highest, lowest

#: Predicted times closer than this count as equal: the difference is noise of the measurement.
TIME_TOLERANCE_S = 2e-3
RELATIVE_TOLERANCE = 0.05


def pick(
    accounts: Sequence[Account],
    scores: Column | Sequence[float],
    *,
    among: Mask | None = None,
    tolerance: float = TIME_TOLERANCE_S,
    relative: float = RELATIVE_TOLERANCE,
    cached: Mapping[str, int] = NOTHING_CACHED,
) -> int:
    """Return the index of the lowest score.

    Among scores within the tolerance: the instance that holds the most of the prompt in its prefix cache, then the one
    with the fewest live reservations, then the least recently chosen, then the lowest id.

    ``accounts`` is not empty and sorted by id.  ``among``: which of them to pick from, at least one; None: all.
    ``cached``: prompt tokens that caches hold, by instance id.
    """
    if type(scores) is not np.ndarray:
        scores = np.asarray(scores, dtype=np.float64)
    rows = None if among is None else among.nonzero()[0]
    held = cached_column(cached, accounts) if cached else None
    return pick_of(figures_of(accounts), scores, rows, tolerance=tolerance, relative=relative, held=held)


def pick_of(
    each: Figures,
    scores: Column,
    rows: Rows | None,
    *,
    tolerance: float = TIME_TOLERANCE_S,
    relative: float = RELATIVE_TOLERANCE,
    held: Column | None = None,
) -> int:
    """Return what ``pick`` returns, given figures, among some of their rows: ascending, at least one; None: all.

    ``held``: prompt tokens in the cache of each account's instance; None: none.
    """
    if rows is not None and len(rows) < len(scores):
        scores, turns = scores[rows], each.turn[rows]
    else:
        rows, turns = None, each.turn  # all
    best = lowest(scores)
    bound = best + best * relative + tolerance
    if held is None:
        first = turns.argmin()  # mostly its score is as good as equal: then it goes first among those that are, too
        if scores.item(first) <= bound:
            return int(first if rows is None else rows[first])
    near = (scores <= np.array(bound)).nonzero()[0]
    if not len(near):  # the best is not a number
        near = np.arange(len(scores))
    if len(near) > 1 and held is not None:
        tokens = held[near if rows is None else rows[near]]
        near = near[tokens == highest(tokens)]
    first = near[turns[near].argmin()] if len(near) > 1 else near[0]
    return int(first if rows is None else rows[first])
