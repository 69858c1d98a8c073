"""A random instance."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings

#: Seeds the generator, so that the same requests are always placed alike.
SEED = 1


class RandomChoice:
    """Chooses an instance at random, each as likely as the other."""

    reserved_slots = 0

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Draw a number for each instance; the lowest wins."""
        draws = [self._rng.random() for _ in accounts]
        return Choice(index=draws.index(min(draws)), why="drawn at random", rule="random", scores={"draw": draws})


def make_random(settings: SchedulerSettings) -> Policy:
    """Make the policy that places at random."""
    return placement_only(
        "random",
        RandomChoice(Random(SEED)),
        to="an instance drawn at random",
        ignores="load, engines' speed, lengths, cached prefixes",
    )
