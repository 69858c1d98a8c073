"""Which mix of instances to try next, in a search for the cheapest one that is good enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from sage_simulator.fleet_spec import FleetSpecError, InstanceModel

_MOST_MIXES = 100_000

#: How many instances there are of each kind.
Counts = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of instance that a fleet may have."""

    instance: InstanceModel
    most: int  # instances of this kind


def fleet_of(kinds: Sequence[Kind], counts: Counts) -> tuple[InstanceModel, ...]:
    """Return the instances of a mix."""
    return tuple(kind.instance for kind, count in zip(kinds, counts, strict=True) for _ in range(count))


class FleetSearch:
    """Searches all mixes of the kinds for the cheapest that is good enough.

    It assumes that a further instance never does harm: a mix within one that was not enough is not tried.  The
    computed load only says where to look first.
    """

    def __init__(self, kinds: Sequence[Kind], load: Callable[[Counts], float], *, most_load: float) -> None:
        """Take ``load``, a mix's computed load, and the highest load that is worth trying.

        Raises FleetSpecError where there are too many mixes, or none within the highest load.
        """
        mixes = prod(kind.most + 1 for kind in kinds)
        if not kinds or mixes > _MOST_MIXES:
            raise FleetSpecError(
                f"{len(kinds)} kinds of instances have {mixes} mixes; from 1 to {_MOST_MIXES} can be tried"
            )
        self._prices = [kind.instance.price_per_hour for kind in kinds]
        self._loads = {counts: load(counts) for counts in product(*(range(kind.most + 1) for kind in kinds))}
        self._open = [counts for counts, value in self._loads.items() if value <= most_load]
        if not self._open:
            least = min(self._loads.values())
            raise FleetSpecError(
                f"all instances together would be loaded to {least:.2f} of their computed capacity; "
                "more instances or a lower rate are needed"
            )
        self._open.sort(key=self._rank)
        self.best: Counts | None = None
        self._highest_enough = 0.0  # load of a mix that was enough
        self._lowest_not = float("inf")  # and of one that was not

    def price(self, counts: Counts) -> float:
        """Return what a mix costs per hour."""
        return sum(count * price for count, price in zip(counts, self._prices, strict=True))

    def load(self, counts: Counts) -> float:
        """Return a mix's computed load."""
        return self._loads[counts]

    def next(self) -> Counts | None:
        """Return the mix to try; None if the cheapest is found, or none is enough."""
        if not self._open:
            return None
        hopeful = (each for each in self._open if self._loads[each] <= self._expected())
        # If none is hopeful, the least loaded one is the one whose failure says most about the others.
        return next(hopeful, None) or min(self._open, key=self._loads.__getitem__)

    def note(self, counts: Counts, *, enough: bool) -> None:
        """Take what a try gave."""
        load = self._loads[counts]
        if enough:
            self._highest_enough = max(self._highest_enough, load)
            self.best = counts
            self._open = [each for each in self._open if self._rank(each) < self._rank(counts)]
        else:
            self._lowest_not = min(self._lowest_not, load)
            self._open = [each for each in self._open if not _within(each, counts)]

    def _expected(self) -> float:
        """Return the highest load that a mix is expected to bear."""
        if self._highest_enough and self._lowest_not < float("inf"):
            return (self._highest_enough + self._lowest_not) / 2
        if self._highest_enough:
            return self._highest_enough * 1.1
        return self._lowest_not * 0.9 if self._lowest_not < float("inf") else 0.8

    def _rank(self, counts: Counts) -> tuple[float, int, Counts]:
        return self.price(counts), sum(counts), counts


def _within(counts: Counts, other: Counts) -> bool:
    return all(mine <= theirs for mine, theirs in zip(counts, other, strict=True))
