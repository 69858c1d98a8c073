"""The highest load with enough requests in target, searched for over a grid of loads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

#: The share of requests in target that is enough.
ENOUGH = 0.9

#: The share in target at a load of the grid; None where it was not measured.
ShareAt = Callable[[float], float | None]


def next_load(loads: Sequence[float], share_at: ShareAt, expected: float | None = None) -> float | None:
    """Return the load that a search for goodput has to know next; None once it knows all that it needs.

    The search bisects.  ``expected``: where the goodput probably is, such as another seed's: the loads on both sides of
    it come first, so that two cells are enough where it is right.
    """
    low, high = _bracket(loads, share_at)
    if high - low == 1:
        return None
    if expected is not None:
        below = bisect_right(loads, expected) - 1
        for index in (below, below + 1):
            if low < index < high and share_at(loads[index]) is None:
                return loads[index]
    return loads[(low + high) // 2]


def goodput(loads: Sequence[float], share_at: ShareAt) -> float | None:
    """Return the highest load with ``ENOUGH`` in target, between the last load that has it and the next one.

    It is interpolated linearly between the two.  All is in target at load 0; a fleet that has enough at the highest
    load of the grid gets that load.  None while ``next_load`` asks for more.  Assumes that more load never has more in
    target; where the shares say otherwise, the least load without enough decides.
    """
    low, high = _bracket(loads, share_at)
    if high - low > 1:
        return None
    if high == len(loads):
        return loads[-1]
    low_load, low_share = (loads[low], share_at(loads[low])) if low >= 0 else (0.0, 1.0)
    high_load, high_share = loads[high], share_at(loads[high])
    assert low_share is not None, "the bracket's ends are known"
    assert high_share is not None, "the bracket's ends are known"
    return low_load + (high_load - low_load) * (low_share - ENOUGH) / (low_share - high_share)


def _bracket(loads: Sequence[float], share_at: ShareAt) -> tuple[int, int]:
    """Return the places of the last load known to have enough, and of the first one after it known to lack it.

    -1 and the number of loads stand for the ends of the grid.
    """
    low = -1
    for index, load in enumerate(loads):
        share = share_at(load)
        if share is not None and share < ENOUGH:
            return low, index
        if share is not None:
            low = index
    return low, len(loads)
