"""The highest load with enough requests in target, found by bisection over a grid of loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

#: The share of requests in target that is enough.
ENOUGH = 0.9


class _Unknown(Exception):
    """The share at a load that a search needs is not known."""

    def __init__(self, load: float) -> None:
        super().__init__(load)
        self.load = load


def next_load(loads: Sequence[float], share_at: Callable[[float], float | None]) -> float | None:
    """Return the load that a search for goodput has to know next; None once it knows all that it needs.

    ``share_at``: the share in target at a load of the grid, None where it is not known.
    """

    def known(load: float) -> float:
        share = share_at(load)
        if share is None:
            raise _Unknown(load)
        return share

    try:
        bisect_loads(loads, known)
    except _Unknown as missing:
        return missing.load
    return None


def bisect_loads(loads: Sequence[float], share_at: Callable[[float], float]) -> float:
    """Return the highest load with ``ENOUGH`` in target, between the last load that has it and the next one.

    It is interpolated linearly between the two.  All is in target at load 0; a fleet that has enough at the highest
    load of the grid gets that load.  Assumes that more load never has more in target.
    """
    low, high = -1, len(loads)  # enough at ``low``, not at ``high``
    while high - low > 1:
        middle = (low + high) // 2
        if share_at(loads[middle]) >= ENOUGH:
            low = middle
        else:
            high = middle
    if high == len(loads):
        return loads[-1]
    low_load, low_share = (loads[low], share_at(loads[low])) if low >= 0 else (0.0, 1.0)
    high_load, high_share = loads[high], share_at(loads[high])
    return low_load + (high_load - low_load) * (low_share - ENOUGH) / (low_share - high_share)
