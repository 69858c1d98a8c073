"""The least KV cache in use."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings


def kv_share(account: Account) -> float:
    """Return the share of the KV cache that is reserved or in use."""
    return account.used_tokens() / account.capacity if account.capacity else 1.0


class LeastKv:
    """Chooses the instance that uses the smallest share of its KV cache."""

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the smallest share of KV cache in use."""
        shares = [kv_share(a) for a in accounts]
        index = least(accounts, shares)
        why = f"{shares[index]:.1%} of its KV cache in use, the least"
        return Choice(index=index, why=why, rule="least_kv", scores={"kv_share": shares})


def make_least_kv(settings: SchedulerSettings) -> Policy:
    """Make the policy that looks at KV caches."""
    return placement_only(
        "least_kv",
        LeastKv(),
        to="the instance with the least of its KV cache in use",
        ignores="engines' speed, prompts that wait for prefill, cached prefixes",
    )
