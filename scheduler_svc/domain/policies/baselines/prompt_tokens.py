"""Prompt tokens that an instance has to compute: of the request, and of those that wait there."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand


def uncached_tokens(demand: Demand, accounts: Sequence[Account]) -> list[float]:
    """Return the request's prompt tokens that each instance's prefix cache does not hold."""
    tokens: list[float] = (demand.prompt_tokens - demand.cached_in(accounts)).tolist()
    return tokens


def pending_tokens(account: Account) -> int:
    """Return the prompt tokens to compute of the requests that have no first token yet."""
    return sum(each.prompt_tokens - (each.cached_tokens or 0) for each in account.pending.prompts.values())
