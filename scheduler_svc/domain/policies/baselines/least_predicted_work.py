"""The least outstanding work in seconds, by engines' known speed."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings


class LeastPredictedWork:
    """Chooses the instance with the least predicted work, the request included.

    Work is the seconds that a request like this one would take there alone, for each live request and this one.  It is
    the weighted least connections of load balancers (Zhang, "Linux virtual server for scalable network services", OLS
    2000), the weight being the speed that the scheduler learned.
    """

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the least seconds of work."""
        prompt, output = demand.prompt_tokens, demand.output_tokens
        work = [(a.live + 1) * a.pace.service_s(prompt, output) for a in accounts]
        index = least(accounts, work)
        why = f"{work[index]:.2f} s of predicted work, the least"
        return Choice(index=index, why=why, rule="least_predicted_work", scores={"work_s": work})


def make_least_predicted_work(settings: SchedulerSettings) -> Policy:
    """Make the policy that weighs requests by engines' speed."""
    return placement_only(
        "least_predicted_work",
        LeastPredictedWork(),
        to="the instance with the least predicted seconds of work",
        ignores="how far live requests are, cached prefixes",
    )
