"""The cheapest fleet that keeps enough requests in target at a given load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sage_simulator.fleet_capacity import load_capacity
from sage_simulator.fleet_search import Counts, FleetSearch, Kind, fleet_of
from sage_simulator.over_seeds import OverSeeds
from sage_simulator.parallel_runs import Crew
from sage_simulator.policy_run import PolicyRun

_MOST_LOAD = 1.25  # computed load that no fleet bears for long; more only with shared prefixes


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A mix of instances that was simulated."""

    counts: Counts  # instances of each kind
    price_per_hour: float
    load: float  # the rate as a share of the mix's computed capacity
    gave: OverSeeds
    enough: bool  # requests in target, in the mean over the seeds


@dataclass(frozen=True, kw_only=True, slots=True)
class CheapestFleet:
    """What the search for one policy found."""

    policy: str
    best: Trial | None  # None: all instances together were not enough
    complete: bool  # False: the trials ran out, and something cheaper may be enough
    trials: tuple[Trial, ...]  # in the order in which they were made


@dataclass(frozen=True, kw_only=True, slots=True)
class CheapestFleetSearch:
    """A search for the cheapest fleet, for several policies."""

    kinds: Sequence[Kind]
    policies: Sequence[str]
    seeds: Sequence[int]
    run: PolicyRun  # on any fleet, under any policy; ``run.rate`` is the load
    share: float = 0.9  # of requests in target that is enough
    most_trials: int = 60  # for each policy

    def find(self, crew: Crew) -> Iterator[Trial | CheapestFleet]:
        """Search; yields each trial as it ends, and what was found for each policy.

        Raises FleetSpecError of ``FleetSearch``, and what ``PolicyRun`` raises.
        """
        searches = {policy: self._search() for policy in self.policies}
        trials: dict[str, list[Trial]] = {policy: [] for policy in self.policies}
        while searches:
            tries: list[tuple[str, Counts]] = []
            for policy, search in list(searches.items()):
                counts = search.next() if len(trials[policy]) < self.most_trials else None
                if counts is not None:
                    tries.append((policy, counts))
                    continue
                best = next((each for each in trials[policy] if each.counts == search.best), None)
                complete = search.next() is None
                yield CheapestFleet(policy=policy, best=best, complete=complete, trials=tuple(trials[policy]))
                del searches[policy]
            for policy, trial in self._try(crew, tries, searches):
                searches[policy].note(trial.counts, enough=trial.enough)
                trials[policy].append(trial)
                yield trial

    def _search(self) -> FleetSearch:
        sample = self.run.workload.sample()
        rate = self.run.rate
        split = self.run.settings.scheduler.pd.enabled
        assert rate is not None, "the load is given"

        def load(counts: Counts) -> float:
            capacity = load_capacity(fleet_of(self.kinds, counts), sample, split=split)
            return rate / capacity if capacity else float("inf")

        shared = any(each.block_hashes for each in sample)
        return FleetSearch(self.kinds, load, most_load=1e9 if shared else _MOST_LOAD)

    def _try(
        self, crew: Crew, tries: Sequence[tuple[str, Counts]], searches: dict[str, FleetSearch]
    ) -> Iterator[tuple[str, Trial]]:
        jobs = [
            replace(self.run, fleet=fleet_of(self.kinds, counts), policy=policy, seed=seed)
            for policy, counts in tries
            for seed in self.seeds
        ]
        done = dict(crew.run(jobs))
        for index, (policy, counts) in enumerate(tries):
            first = index * len(self.seeds)
            summaries = [done[each] for each in range(first, first + len(self.seeds))]
            yield (
                policy,
                Trial(
                    counts=counts,
                    price_per_hour=searches[policy].price(counts),
                    load=searches[policy].load(counts),
                    gave=OverSeeds.of(summaries),
                    enough=sum(each.in_target_share for each in summaries) >= self.share * len(summaries),
                ),
            )
