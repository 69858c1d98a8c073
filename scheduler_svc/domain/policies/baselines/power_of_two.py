"""Power of two choices."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.baselines.random_choice import SEED
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings


class PowerOfTwo:
    """Draws two instances and chooses the one with fewer live requests.

    Mitzenmacher, "The power of two choices in randomized load balancing", IEEE TPDS 12(10), 2001.
    """

    reserved_slots = 0

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the less loaded of two."""
        drawn = sorted(self._rng.sample(range(len(accounts)), min(2, len(accounts))))
        loads = [float(a.live) for a in accounts]
        index = drawn[least([accounts[i] for i in drawn], [loads[i] for i in drawn])]
        return Choice(
            index=index,
            why=f"{loads[index]:.0f} live requests, the fewest of {len(drawn)} drawn at random",
            rule="power_of_two",
            scores={"live_requests": loads},
            rejected={i: ("draw", "was not drawn") for i in range(len(accounts)) if i not in drawn},
        )


def make_power_of_two(settings: SchedulerSettings) -> Policy:
    """Make the policy that compares two random instances."""
    return placement_only(
        "power_of_two",
        PowerOfTwo(Random(SEED)),
        to="the one of two random instances with fewer requests",
        ignores="engines' speed, lengths, cached prefixes, all but two instances",
    )
