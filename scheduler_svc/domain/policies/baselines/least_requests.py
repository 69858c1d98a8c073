"""The fewest live requests, also known as least outstanding or join the shortest queue."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings


class LeastRequests:
    """Chooses the instance with the fewest live requests; equal ones take turns."""

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the instance with the fewest live requests."""
        loads = [float(a.live) for a in accounts]
        index = least(accounts, loads)
        why = f"{loads[index]:.0f} live requests, the fewest"
        return Choice(index=index, why=why, rule="least_requests", scores={"live_requests": loads})


def make_least_requests(settings: SchedulerSettings) -> Policy:
    """Make the policy that counts requests."""
    return placement_only(
        "least_requests",
        LeastRequests(),
        to="the instance with the fewest requests",
        ignores="engines' speed, lengths, cached prefixes",
    )
