"""The highest load with enough requests in target, found by bisection over a grid of loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.policies.cell import Cell
from tests.bench.policies.figures import Figures

#: The share of requests in target that is enough.
ENOUGH = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Runs the cells that a goodput needs.  Can be sent to another process."""

    cell: Cell  # at any load
    loads: Sequence[float]  # ascending
    known: Mapping[float, Figures]  # by load

    def __call__(self) -> dict[str, Figures]:
        """Return the figures of the cells that were run, by key."""
        found: dict[str, Figures] = {}

        def share_at(load: float) -> float:
            figures = self.known.get(load)
            if figures is None:
                cell = self.cell.at(load)
                figures = found[cell.key] = cell.run()
            return figures.in_target_share

        bisect_loads(self.loads, share_at)
        return found

    @property
    def complete(self) -> bool:
        """Whether every cell that it needs is known."""
        try:
            bisect_loads(self.loads, lambda load: self.known[load].in_target_share)
        except KeyError:
            return False
        return True


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
