"""Reads the results of a run: estimates over seeds, and ratios of two policies on the same seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sage_simulator.estimate import Estimate
from scheduler_svc.domain.policies.builtin import BUILTIN
from tests.bench.policies.cell import Cell, Group
from tests.bench.policies.figures import Figures
from tests.bench.policies.fleets import SEPARATED
from tests.bench.policies.goodput import goodput, next_load
from tests.bench.policies.results import Results
from tests.bench.policies.traffic import SESSIONS, SHARES_PREFIXES
from tests.bench.policies.variants import PREFIX_BLIND


class NotMeasured(Exception):
    """A cell that a reading needs was not run."""


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What the results say of the groups that were asked for."""

    results: Results
    groups: Sequence[Group]
    policies: Sequence[str]
    loads: Sequence[float]  # the grid of goodput, ascending
    seeds: Sequence[int]
    duration_s: float  # of arrivals in a run
    search_s: float | None = None  # of arrivals in a run that only the search for goodput needs; None: as many
    traces: Path | None = None
    at: Sequence[float] = ()  # loads that every policy is run at, instead of claims and goodput; empty: those

    def policies_in(self, group: Group) -> Sequence[str]:
        """Return the policies to run in a group.

        Split requests are compared under the built-in policies only; variants run where they change something, of
        other policies than ``slo_aware`` only where sessions are compared.
        """
        return [each for each in self.policies if self._runs(each, group)]

    def _runs(self, policy: str, group: Group) -> bool:
        name, _, variant = policy.partition("/")
        if variant == PREFIX_BLIND:
            there = (SESSIONS,) if name != "slo_aware" else SHARES_PREFIXES
            return group.traffic in there and group.fleet != SEPARATED
        return name in BUILTIN if group.fleet == SEPARATED else not variant

    def cell(self, group: Group, policy: str, load: float, seed: int) -> Cell:
        """Return a cell of the run."""
        return Cell(group=group, policy=policy, load=load, seed=seed, duration_s=self.duration_s, traces=self.traces)

    def figures(self, group: Group, policy: str, load: float, seed: int) -> Figures:
        """Return the figures of a cell.  Raises NotMeasured."""
        found = self.results.find(self.cell(group, policy, load, seed))
        if found is None:
            raise NotMeasured
        return found

    def seed_goodput(self, group: Group, policy: str, seed: int) -> float:
        """Return the goodput of one seed, as a share of the fleet's capacity.  Raises NotMeasured."""
        found = goodput(self.loads, self._share_at(group, policy, seed))
        if found is None:
            raise NotMeasured
        return found

    def next_load(self, group: Group, policy: str, seed: int) -> float | None:
        """Return the load that the search for a goodput has to know next; None once the goodput is known.

        The search begins at the policy's goodput that is known by other seeds, or else on the other fleets.
        """
        elsewhere = (each for each in self.groups if (each.fleet == SEPARATED) == (group.fleet == SEPARATED))
        alike = [each for each in elsewhere if replace(each, fleet=group.fleet) == group]
        known = self.goodput(group, policy) or next(filter(None, (self.goodput(g, policy) for g in alike)), None)
        return next_load(self.loads, self._share_at(group, policy, seed), known.mean if known is not None else None)

    def _share_at(self, group: Group, policy: str, seed: int) -> Callable[[float], float | None]:
        def share_at(load: float) -> float | None:
            cell = self.cell(group, policy, load, seed)
            found = self.results.find(cell) or self.results.find(self.shortened(cell))
            return found.in_target_share if found is not None else None

        return share_at

    def shortened(self, cell: Cell) -> Cell:
        """Return the cell with as few arrivals as the search for goodput needs."""
        return replace(cell, duration_s=self.search_s if self.search_s is not None else self.duration_s)

    def goodput(self, group: Group, policy: str) -> Estimate | None:
        """Return the goodput over the seeds that were run; None if none was."""
        return Estimate.of(self._each(lambda seed: self.seed_goodput(group, policy, seed)))

    def goodput_ratio(self, group: Group, policy: str, other: str) -> Estimate | None:
        """Return the goodput of one policy by another's, on the same seeds; None if no seed has both."""

        def ratio(seed: int) -> float:
            return self.seed_goodput(group, policy, seed) / max(self.seed_goodput(group, other, seed), 1e-9)

        return Estimate.of(self._each(ratio))

    def best(self, group: Group, among: Iterable[str]) -> str | None:
        """Return the policy with the highest goodput; None if none was measured."""
        there = self.policies_in(group)
        found = {policy: self.goodput(group, policy) for policy in among if policy in there}
        means = {policy: estimate.mean for policy, estimate in found.items() if estimate is not None}
        return max(means, key=means.__getitem__, default=None)

    def estimate(
        self, group: Group, policy: str, load: float, read: Callable[[Figures], float | None]
    ) -> Estimate | None:
        """Return a figure at a load, over the seeds that were run; None if there is none."""
        return Estimate.of(self._each(lambda seed: read(self.figures(group, policy, load, seed))))

    def compared(
        self,
        group: Group,
        policies: tuple[str, str],
        load: float,
        read: Callable[[Figures], float | None],
        compare: Callable[[float, float], float],
    ) -> Estimate | None:
        """Compare a figure of two policies at a load, on the same seeds; None if no seed has both."""

        def of_seed(seed: int) -> float | None:
            one, other = (read(self.figures(group, each, load, seed)) for each in policies)
            return compare(one, other) if one is not None and other is not None else None

        return Estimate.of(self._each(of_seed))

    def _each(self, read: Callable[[int], float | None]) -> list[float | None]:
        values: list[float | None] = []
        for seed in self.seeds:
            try:
                values.append(read(seed))
            except NotMeasured:
                continue
        return values
