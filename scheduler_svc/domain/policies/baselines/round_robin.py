"""Round robin."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings


class RoundRobin:
    """Chooses the instance that was chosen longest ago, so that all take turns."""

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the instance whose latest attempt has the lowest number."""
        scores = [float(a.last_chosen) for a in accounts]
        return Choice(
            index=least(accounts, scores), why="its turn", rule="round_robin", scores={"latest_attempt": scores}
        )


def make_round_robin(settings: SchedulerSettings) -> Policy:
    """Make the policy that lets instances take turns."""
    return placement_only(
        "round_robin",
        RoundRobin(),
        to="the next instance in turn",
        ignores="load, engines' speed, lengths, cached prefixes",
    )
