"""Picks the best score; among equal scores the instance with the least load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.cached_tokens import cached_column
from scheduler_svc.domain.capacity.figures import Column, Mask, Rows, highest, lowest

#: Predicted times closer than this count as equal: the difference is noise of the measurement.
TIME_TOLERANCE_S = 2e-3
RELATIVE_TOLERANCE = 0.05

_NOTHING: Mapping[str, int] = {}


def pick(
    accounts: Sequence[Account],
    scores: Column | Sequence[float],
    *,
    among: Mask | None = None,
    tolerance: float = TIME_TOLERANCE_S,
    relative: float = RELATIVE_TOLERANCE,
    cached: Mapping[str, int] = _NOTHING,
) -> int:
    """Return the index of the lowest score.

    Among scores within the tolerance: the instance that holds the most of the prompt in its prefix cache, then the one
    with the fewest live reservations, then the least recently chosen, then the lowest id.

    ``accounts`` is not empty and sorted by id.  ``among``: which of them to pick from, at least one; None: all.
    ``cached``: prompt tokens that caches hold, by instance id.
    """
    rows = None if among is None else among.nonzero()[0]
    return pick_of(accounts, scores, rows, tolerance=tolerance, relative=relative, cached=cached)


def pick_of(
    accounts: Sequence[Account],
    scores: Column | Sequence[float],
    rows: Rows | None,
    *,
    tolerance: float = TIME_TOLERANCE_S,
    relative: float = RELATIVE_TOLERANCE,
    cached: Mapping[str, int] = _NOTHING,
) -> int:
    """Return what ``pick`` returns, among the accounts of some rows: ascending, at least one; None: all."""
    if type(scores) is not np.ndarray:
        scores = np.asarray(scores, dtype=np.float64)
    if rows is not None and len(rows) < len(scores):
        scores = scores[rows]
    else:
        rows = None  # all
    best = lowest(scores)
    near = (~(scores > best + best * relative + tolerance)).nonzero()[0]  # all, where all are infinite
    if len(near) == 1:
        return int(near[0] if rows is None else rows[near[0]])
    rows = near if rows is None else rows[near]
    if cached:
        held = cached_column(cached, accounts)[rows]
        rows = rows[held == highest(held)]
    return int(rows[figures_of(accounts).turn[rows].argmin()])
