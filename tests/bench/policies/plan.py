"""What has to be run, in what order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.policies.cell import Cell
from tests.bench.policies.claims import CLAIM_LOADS
from tests.bench.policies.figures import Figures
from tests.bench.policies.goodput import Search
from tests.bench.policies.readings import Readings


@dataclass(frozen=True, kw_only=True, slots=True)
class Single:
    """Runs one cell.  Can be sent to another process."""

    cell: Cell

    def __call__(self) -> dict[str, Figures]:
        """Return the figures of the cell, by key."""
        return {self.cell.key: self.cell.run()}


def jobs(readings: Readings, extra_loads: Sequence[float]) -> Iterator[Single | Search]:
    """Yield what is left to run: first the cells at fixed loads, then the searches for goodput that use them.

    ``extra_loads``: run for every policy, beside those that the claims need.  Ask again after the first ones are done:
    a search knows the cells that are there when it is made.
    """
    found = list(_singles(readings, extra_loads))
    yield from found or _searches(readings)


def _singles(readings: Readings, extra_loads: Sequence[float]) -> Iterator[Single]:
    for seed in readings.seeds:
        for group in readings.groups:
            for policy in readings.policies_in(group):
                for load in sorted({*extra_loads, *CLAIM_LOADS.get(policy, ())}):
                    cell = readings.cell(group, policy, load, seed)
                    if readings.results.find(cell) is None:
                        yield Single(cell=cell)


def _searches(readings: Readings) -> Iterator[Search]:
    for seed in readings.seeds:
        for group in readings.groups:
            for policy in readings.policies_in(group):
                search = _search(readings, readings.cell(group, policy, readings.loads[0], seed))
                if search is not None:
                    yield search


def _search(readings: Readings, cell: Cell) -> Search | None:
    """Return the search for one goodput; None if all its cells are there."""
    known = {load: figures for load in readings.loads if (figures := readings.results.find(cell.at(load))) is not None}
    search = Search(cell=cell, loads=readings.loads, known=known)
    return None if search.complete else search
