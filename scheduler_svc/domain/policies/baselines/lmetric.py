"""LMetric's product."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.baselines.prompt_tokens import pending_tokens, uncached_tokens
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings


class Lmetric:
    """Chooses the lowest prompt tokens to compute x requests there, the new request included in both.

    A product needs no weights: a factor that is common to all instances changes nothing.  Zhang et al., "Simple is
    Better: Multiplication May Be All You Need for LLM Request Scheduling", arXiv 2603.15202.
    """

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the lowest product."""
        uncached = uncached_tokens(demand, accounts)
        products = [(pending_tokens(a) + own) * (a.live + 1) for a, own in zip(accounts, uncached, strict=True)]
        index = least(accounts, products)
        why = f"{products[index]:.0f} prompt tokens to compute x requests, the lowest"
        return Choice(index=index, why=why, rule="lmetric", scores={"tokens_times_requests": products})


def make_lmetric(settings: SchedulerSettings) -> Policy:
    """Make the policy that multiplies prompt tokens and requests."""
    return placement_only(
        "lmetric",
        Lmetric(),
        to="the lowest product of prompt tokens to compute and requests",
        ignores="engines' speed, output lengths",
    )
